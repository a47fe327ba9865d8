"""Loggers: hooks that write a run's records where other tools read them.

After a resume the first chunks hold all records so far, and a logger writes them anew. A run may be
a stranger's: what a logger writes into its directory never goes through a link.
"""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from purerl.checks import require_package, short_repr
from purerl.experiment.logging.hooks import Chunk
from purerl.experiment.report.statistics import iqm
from purerl.experiment.store import files
from purerl.experiment.store.header import find_header
from purerl.experiment.store.identity import identity_of
from purerl.experiment.store.own_files import BOARD, LOGS

ID = re.compile(r"[\w.-]{1,128}")  # of a run at Weights & Biases
SECRET = re.compile(r"(^|_)key$|api.?key|token|secret|passw|credential", re.IGNORECASE)


def record_rows(chunk: Chunk, *, per_seed: bool = False) -> list[dict[str, Any]]:
    """The records of a chunk, each a dictionary: numbers over seeds, None where undefined.

    Names are those of `Metrics`, with `updates`, `env_steps`, `return_seeds` (how many seeds stand
    behind `episode_return`), `failed_seeds` (their number), and in the last record `greedy_return`
    and `sampled_return` where episodes were played. `per_seed` adds the numbers of single seeds, as
    `NAME/seed_ID`.
    """
    over_seeds = chunk.over_seeds()
    rows = []
    for i, updates in enumerate(chunk.record_updates):
        row = {"updates": int(updates), "env_steps": int(chunk.record_env_steps[i])}
        row |= {name: _number(values[i]) for name, values in over_seeds.items()}
        row["return_seeds"] = int(over_seeds["return_seeds"][i])
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


def _is_within(path: str | Path, directory: Path) -> bool:
    """Whether a path is in a directory by its name, wherever links lead."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(directory))


def _require_no_way_out(path: str | Path, directory: Path) -> None:
    """Refuse a path in a directory from which a link leads out of it."""
    real = Path(os.path.realpath(path))
    if _is_within(path, directory) and not real.is_relative_to(os.path.realpath(directory)):
        raise OSError(f"{path} leads to {real}, outside of the run; remove that link")


def _why_not_own(path: Path, run: str) -> str | None:
    """Why a file is not to be written over: it is not this run's, nor empty, nor a device."""
    if not path.is_file() or path.stat().st_size == 0:
        return None
    other = identity_of(path)
    if other is None:
        return "which purerl did not write"
    return None if other.run == run else f"which is of run {other.run}, not of this run, {run}"


def _require_own(path: Path, chunk: Chunk) -> None:
    """Refuse a file that another run has begun since this one did."""
    problem = _why_not_own(path, chunk.identity.run)
    if problem is not None:
        raise OSError(f"{path} is a file {problem}; give each run a place of its own")


def _create(path: Path) -> Any:
    """Open a new file in the place of whatever has this name: a link is removed, not followed."""
    path.unlink(missing_ok=True)
    return open(path, "x")


def _absolute(path: str | Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


class JsonLines:
    """Writes a line of JSON for each record into `metrics.jsonl` of the run directory.

    Each says of which run it is.
    """

    def __init__(self, path: str | Path | None = None, *, per_seed: bool = False):
        self.path = path
        self.arguments = {"path": _absolute(path), "per_seed": per_seed}
        self.per_seed = per_seed
        self._file: Any = None

    def place(self, directory: Path) -> Path:
        """The file that is written for a run in a directory."""
        return Path(self.path or directory / LOGS["jsonl"][1])

    def why_not_free(self, place: Path, run: str) -> str | None:
        """What is wrong with a place that is not free for a run; None where it is."""
        return _why_not_own(place, run)

    def __call__(self, chunk: Chunk) -> None:
        if self._file is None:
            path = self.place(chunk.directory)
            _require_no_way_out(path.parent, chunk.directory)
            _require_own(path, chunk)
            is_own = _is_within(path, chunk.directory)
            self._file = _create(path) if is_own else open(path, "w")  # noqa: SIM115
        for row in record_rows(chunk, per_seed=self.per_seed):
            self._file.write(json.dumps(chunk.identity._asdict() | row) + "\n")
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

    def place(self, directory: Path) -> Path:
        """The directory of event files that is written for a run in a directory."""
        return Path(self.directory or directory / LOGS["tensorboard"][1])

    def why_not_free(self, place: Path, run: str) -> str | None:
        """What is wrong with a place that is not free for a run; None where it is."""
        if not (place / BOARD).exists() and any(place.glob("events.out.tfevents.*")):
            return "which has event files of others"
        return _why_not_own(place / BOARD, run)

    def __call__(self, chunk: Chunk) -> None:
        if self._writer is None:
            import tensorboardX

            directory = self.place(chunk.directory)
            _require_no_way_out(directory, chunk.directory)
            _require_own(directory / BOARD, chunk)
            directory.mkdir(parents=True, exist_ok=True)
            files.write_checked_json(directory / BOARD, chunk.identity._asdict())
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

    The run directory keeps the project, and the id that wandb gives the run; no other setting.
    After a resume, given again, the same wandb run goes on, and takes only the records after its
    last step.

    **Arguments:** `settings` go to `wandb.init`, such as `project` or `mode="offline"`. Of
    `config`, which is added to the run's, keys, tokens and passwords are left out.
    """

    def __init__(self, *, per_seed: bool = False, **settings: Any):
        require_package("wandb", "wandb")
        if not isinstance(settings.get("config", {}), dict):
            raise ValueError(f"config = {short_repr(settings['config'])} must be a dictionary.")
        self.per_seed = per_seed
        self.settings = settings
        # Of the settings only this: others may be secret, at any depth.
        named = {"project": project} if isinstance(project := settings.get("project"), str) else {}
        self.arguments = {"per_seed": per_seed, **named}
        self._run: Any = None

    def place(self, directory: Path) -> Path:
        """The file that keeps the id that a run in a directory has there."""
        return directory / LOGS["wandb"][1]

    def why_not_free(self, place: Path, run: str) -> str | None:
        """What is wrong with a place that is not free for a run; None where it is."""
        return _why_not_own(place, run)

    def __call__(self, chunk: Chunk) -> None:
        if self._run is None:
            import wandb

            _require_no_way_out(chunk.directory / "wandb", chunk.directory)
            settings = {"project": "purerl", "name": chunk.directory.name}
            settings["dir"] = str(chunk.directory.absolute())
            place = self.place(chunk.directory)
            _require_own(place, chunk)
            known = read_wandb_id(place)
            if known is not None:
                settings |= {"id": known, "resume": "allow"}
            settings = {**settings, **self.settings}
            settings["config"] = _config(chunk.directory) | _without_secrets(
                settings.get("config", {})
            )
            self._run = wandb.init(**settings)
            files.write_checked_json(place, chunk.identity._asdict() | {"wandb": self._run.id})
        for row in record_rows(chunk, per_seed=self.per_seed):
            defined = {name: value for name, value in row.items() if value is not None}
            self._run.log(defined, step=row["env_steps"])

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


def read_wandb_id(path: Path) -> str | None:
    """The id of a run at Weights & Biases; None where the file holds none."""
    try:
        text = files.read_checked_json(path).get("wandb")
    except (OSError, files.CorruptFileError):
        return None
    return text if isinstance(text, str) and ID.fullmatch(text) else None


def _config(directory: Path) -> dict[str, Any]:
    """What Weights & Biases shows as the config of a run: its header, without its loggers."""
    header = find_header(directory) or {}
    return {name: value for name, value in header.items() if name != "hooks"}


def _without_secrets(value: Any) -> Any:
    """A setting without the entries whose names are those of secrets, at any depth."""
    if isinstance(value, dict):
        kept = {name: item for name, item in value.items() if not SECRET.search(str(name))}
        return {name: _without_secrets(item) for name, item in kept.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return value


LOGGERS: dict[str, Any] = {  # by their names on the command line
    "jsonl": JsonLines,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
