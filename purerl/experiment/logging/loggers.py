"""Loggers: hooks that write a run's records where other tools read them.

After a resume the first chunks hold all records so far, and a logger writes them anew.
"""

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from purerl.checks import require_package
from purerl.experiment.logging.hooks import Chunk
from purerl.experiment.report.statistics import iqm
from purerl.experiment.store.header import find_header

LOG = "metrics.jsonl"
RUN_ID = "wandb_id.txt"


def record_rows(chunk: Chunk, *, per_seed: bool = False) -> list[dict[str, Any]]:
    """The records of a chunk, each a dictionary: numbers over seeds, None where undefined.

    Names are those of `Metrics`, with `updates`, `env_steps`, `failed_seeds` (their number), and in
    the last record `greedy_return` and `sampled_return` where episodes were played. `per_seed` adds
    the numbers of single seeds, as `NAME/seed_ID`.
    """
    over_seeds = chunk.over_seeds()
    rows = []
    for i, updates in enumerate(chunk.record_updates):
        row = {"updates": int(updates), "env_steps": int(chunk.record_env_steps[i])}
        row |= {name: _number(values[i]) for name, values in over_seeds.items()}
        row["failed_seeds"] = int(np.sum((chunk.failed_at >= 0) & (chunk.failed_at < updates)))
        if per_seed:
            for field in dataclasses.fields(chunk.metrics):
                row |= _by_seed(field.name, chunk, getattr(chunk.metrics, field.name)[:, i])
        rows.append(row)
    for name in ("greedy_return", "sampled_return"):
        returns = getattr(chunk, name)
        if returns is not None:
            alive = returns[chunk.failed_at < 0]
            rows[-1][name] = _number(iqm(alive)) if alive.size else None
            if per_seed:
                rows[-1] |= _by_seed(name, chunk, returns)
    return rows


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
            self._file = open(path, "w")  # noqa: SIM115 (`close` closes it)
        for row in record_rows(chunk, per_seed=self.per_seed):
            self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoard:
    """Writes event files for TensorBoard into `tensorboard/` of the run directory."""

    def __init__(self, directory: str | Path | None = None, *, per_seed: bool = False):
        require_package("tensorboardX", "tensorboard")
        self.directory = directory
        self.arguments = {"directory": _absolute(directory), "per_seed": per_seed}
        self.per_seed = per_seed
        self._writer: Any = None

    def __call__(self, chunk: Chunk) -> None:
        if self._writer is None:
            import tensorboardX

            directory = self.directory or chunk.directory / "tensorboard"
            # `purge_step` replaces what an earlier process wrote.
            self._writer = tensorboardX.SummaryWriter(str(directory), purge_step=0)
        for row in record_rows(chunk, per_seed=self.per_seed):
            for name, value in row.items():
                if value is not None and name != "env_steps":
                    self._writer.add_scalar(name, value, row["env_steps"])
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """Logs to Weights & Biases; offline, into `wandb/` of the run directory.

    The run directory keeps the id that wandb gives the run. After a resume the same wandb run goes
    on, and takes only the records after its last step.

    **Arguments:** `settings` go to `wandb.init`, such as `project` or `mode="offline"`.
    """

    def __init__(self, *, per_seed: bool = False, **settings: Any):
        require_package("wandb", "wandb")
        self.per_seed = per_seed
        self.settings = settings
        self.arguments = {"per_seed": per_seed, **settings}
        self._run: Any = None

    def __call__(self, chunk: Chunk) -> None:
        if self._run is None:
            import wandb

            settings = {"project": "purerl", "name": chunk.directory.name}
            settings["dir"] = str(chunk.directory.absolute())
            id_file = chunk.directory / RUN_ID
            if id_file.exists():
                settings |= {"id": id_file.read_text(), "resume": "allow"}
            config = find_header(chunk.directory)
            self._run = wandb.init(config=config, **{**settings, **self.settings})
            id_file.write_text(self._run.id)
        for row in record_rows(chunk, per_seed=self.per_seed):
            defined = {name: value for name, value in row.items() if value is not None}
            self._run.log(defined, step=row["env_steps"])

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


LOGGERS: dict[str, Any] = {  # by their names on the command line
    "jsonl": JsonLines,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def describe_hooks(hooks: Sequence[Any]) -> list[dict[str, Any]]:
    """Hooks as JSON, for `rebuild_loggers`: loggers with their arguments, others by name."""
    return [_describe(hook) for hook in hooks]


def _describe(hook: Any) -> dict[str, Any]:
    for name, logger_type in LOGGERS.items():
        if type(hook) is logger_type and _is_json(hook.arguments):
            return {"logger": name, "arguments": hook.arguments}
    return {"function": getattr(hook, "__name__", type(hook).__name__)}


def _is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


def rebuild_loggers(described: Sequence[dict[str, Any]]) -> list[Any]:
    """The loggers of a resumed run; a warning names the other hooks, which are not called."""
    functions = [hook["function"] for hook in described if "function" in hook]
    if functions:
        warnings.warn(
            f"hooks that the run had before are not called any more: {', '.join(functions)}; "
            f"give all of them again, as hooks=.",
            stacklevel=3,
        )
    loggers = [hook for hook in described if "logger" in hook]
    return [LOGGERS[logger["logger"]](**logger["arguments"]) for logger in loggers]
