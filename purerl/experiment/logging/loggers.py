"""Loggers: hooks that write a run's records where other tools read them.

Each is called with a `Chunk` between chunks. After a resume the first chunks hold all records so
far, and each writes them anew.
"""

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from purerl.checks import require
from purerl.experiment.logging.hooks import Chunk
from purerl.experiment.report.statistics import iqm

LOG = "metrics.jsonl"
RUN_ID = "wandb_id.txt"


def lines(chunk: Chunk, *, per_seed: bool = False) -> list[dict[str, Any]]:
    """The records of a chunk, each a dictionary: numbers over seeds, None where undefined.

    Names are those of `Metrics`, with `updates`, `env_steps`, `failed_seeds` (their number), and in
    the last record `greedy_return` and `sampled_return` where episodes were played. With `per_seed`
    each has the numbers of single seeds too, as `NAME/seed_ID`.
    """
    over_seeds = chunk.over_seeds()
    written = []
    for i, (updates, env_steps) in enumerate(
        zip(chunk.record_updates, chunk.record_env_steps, strict=True)
    ):
        failed = (chunk.failed_at >= 0) & (chunk.failed_at < updates)
        line = {"updates": int(updates), "env_steps": int(env_steps)}
        line |= {name: _number(values[i]) for name, values in over_seeds.items()}
        line["failed_seeds"] = int(np.sum(failed))
        if per_seed:
            for field in dataclasses.fields(chunk.metrics):
                column = getattr(chunk.metrics, field.name)[:, i]
                line |= _by_seed(field.name, chunk, column)
        written.append(line)
    for name in ("greedy_return", "sampled_return"):
        returns = getattr(chunk, name)
        if returns is not None:
            alive = returns[chunk.failed_at < 0]
            written[-1][name] = _number(iqm(alive)) if alive.size else None
            if per_seed:
                written[-1] |= _by_seed(name, chunk, returns)
    return written


def _by_seed(name: str, chunk: Chunk, values: ndarray) -> dict[str, Any]:
    pairs = zip(chunk.seed_ids, values, strict=True)
    return {f"{name}/seed_{seed}": _number(value) for seed, value in pairs}


def _absolute(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


class JsonLines:
    """Writes a line of JSON for each record into `metrics.jsonl` of the run directory."""

    def __init__(self, path: str | Path | None = None, *, per_seed: bool = False):
        self.path = path
        self.arguments = {"path": _absolute(path), "per_seed": per_seed}
        self.per_seed = per_seed
        self._file: Any = None

    def __call__(self, chunk: Chunk) -> None:
        if self._file is None:
            path = chunk.directory / LOG if self.path is None else self.path
            self._file = open(path, "w")  # noqa: SIM115 (it is closed by `close`)
        for line in lines(chunk, per_seed=self.per_seed):
            self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoard:
    """Writes event files for TensorBoard into `tensorboard/` of the run directory."""

    def __init__(self, directory: str | Path | None = None, *, per_seed: bool = False):
        require("tensorboardX", "tensorboard")
        self.directory = directory
        self.arguments = {"directory": _absolute(directory), "per_seed": per_seed}
        self.per_seed = per_seed
        self._writer: Any = None

    def __call__(self, chunk: Chunk) -> None:
        if self._writer is None:
            import tensorboardX

            directory = self.directory or chunk.directory / "tensorboard"
            # What an earlier process has written is replaced, not shown twice.
            self._writer = tensorboardX.SummaryWriter(str(directory), purge_step=0)
        for line in lines(chunk, per_seed=self.per_seed):
            for name, value in line.items():
                if value is not None and name != "env_steps":
                    self._writer.add_scalar(name, value, line["env_steps"])
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """Logs to Weights & Biases, or into `wandb/` of the run directory where it is offline.

    Its run's id is kept in the directory: after a resume the same run goes on. That has the records
    up to there already, so that only those after its last step are new to it.

    **Arguments:** `settings` go to `wandb.init`, such as `project` or `mode="offline"`.
    """

    def __init__(self, *, per_seed: bool = False, **settings: Any):
        require("wandb", "wandb")
        self.per_seed = per_seed
        self.settings = settings
        self.arguments = {"per_seed": per_seed, **settings}
        self._run: Any = None

    def __call__(self, chunk: Chunk) -> None:
        if self._run is None:
            import wandb

            config = json.loads((chunk.directory / "config.json").read_text())
            usual = {
                "project": "purerl",
                "name": chunk.directory.name,
                "dir": str(chunk.directory.absolute()),
            }
            run_id = chunk.directory / RUN_ID
            if run_id.exists():
                usual |= {"id": run_id.read_text(), "resume": "allow"}
            self._run = wandb.init(config=config, **{**usual, **self.settings})
            run_id.write_text(self._run.id)
        for line in lines(chunk, per_seed=self.per_seed):
            defined = {name: value for name, value in line.items() if value is not None}
            self._run.log(defined, step=line["env_steps"])

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


LOGGERS: dict[str, Any] = {
    "jsonl": JsonLines,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def make_logger(name: str, **arguments: Any) -> Any:
    """A logger by its name on the command line: `jsonl`, `tensorboard` or `wandb`."""
    return LOGGERS[name](**arguments)


def describe_hooks(hooks: Sequence[Any]) -> list[dict[str, Any]]:
    """Hooks as JSON, for `make_again`: a logger with its arguments, of another hook its name."""
    return [_describe(hook) for hook in hooks]


def _describe(hook: Any) -> dict[str, Any]:
    for name, kind in LOGGERS.items():
        if type(hook) is kind and _is_json(hook.arguments):
            return {"logger": name, "arguments": hook.arguments}
    return {"function": getattr(hook, "__name__", type(hook).__name__)}


def _is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


def make_again(described: Sequence[dict[str, Any]]) -> list[Any]:
    """The loggers of a run that goes on; of other hooks it warns that they are not called."""
    functions = [each["function"] for each in described if "function" in each]
    if functions:
        warnings.warn(
            f"hooks that the run had before are not called any more: {', '.join(functions)}; "
            f"give all of them again, as hooks=.",
            stacklevel=3,
        )
    made = [each for each in described if "logger" in each]
    return [make_logger(each["logger"], **each["arguments"]) for each in made]
