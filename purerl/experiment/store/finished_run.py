"""Finished runs, read from their directories without building anything."""

import dataclasses
import warnings
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.config.config import Config
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import (
    CHECKPOINTS,
    MANIFEST,
    RECORDS,
    find_damage,
    latest_checkpoint,
    list_checkpoints,
    read_manifest,
    restore_records,
)
from purerl.experiment.store.directory import read_header
from purerl.experiment.store.files import (
    CorruptFileError,
    explaining_write_errors,
    read_checked_json,
    write_checked_json,
)
from purerl.experiment.store.header import find_header
from purerl.experiment.store.identity import (
    FORMAT,
    MARK,
    Identity,
    require_readable,
    with_defaults,
)
from purerl.experiment.store.own_files import require_own_names
from purerl.experiment.store.paths import as_directory, resume_command, shown
from purerl.experiment.store.records import UPDATES
from purerl.types import Metrics


class FinishedRun(NamedTuple):
    """A finished run, as read from its directory."""

    directory: Path
    env: str
    algo: str
    seed_ids: tuple[int, ...]
    returns: Float[ndarray, " seeds"]  # NaN where the seed failed, or no episode of it ended
    greedy: bool  # whether `returns` are means of greedy episodes, or the last in training
    target_return: float | None
    env_steps_per_update: int
    env_steps: int  # of one seed, as the run was meant to have
    conditions: dict[str, Any]  # what runs have in common whose returns compare, as in the header
    provenance: Sequence[dict[str, Any]]  # as `extend_provenance` lists them
    arrays: dict[str, ndarray]  # `Records.arrays()`, `seed_ids` and `failed_at`
    identity: Identity

    @property
    def return_name(self) -> str:
        """The name of `returns`."""
        return "greedy return" if self.greedy else "last return in training"

    @property
    def failed_seeds(self) -> tuple[int, ...]:
        """The ids of the seeds that stopped being finite."""
        return tuple(compress(self.seed_ids, self.arrays["failed_at"] >= 0))

    @property
    def seeds_without_episode(self) -> tuple[int, ...]:
        """The ids of the seeds that have not failed, but have ended no episode."""
        has_no_episode = np.isnan(self.returns) & (self.arrays["failed_at"] < 0)
        return tuple(compress(self.seed_ids, has_no_episode))


def read_run(directory: str | Path) -> FinishedRun:
    """Read a finished run, from what is left of it; warn of what is damaged.

    **Raises:** `ValueError` where there is no run, or it is not finished, or too much is damaged.
    """
    directory = as_directory(directory)
    header = read_header(directory)
    config = header["config"]
    summary = _read_result_summary(directory)
    arrays = _read_result_arrays(directory, header, summary)
    if arrays[UPDATES][-1] != config["num_updates"] and np.any(arrays["failed_at"] < 0):
        raise _unfinished(directory)
    returns = [seed["episode_return"] for seed in summary["seeds"]]
    if not len(returns) == len(arrays["failed_at"]) == len(header["seeds"]):
        raise ValueError(f"{shown(directory)!r} is damaged: its files are not of the same seeds.")
    env_steps_per_update = config["num_envs"] * config["rollout_length"]
    conditions = {"env": config.get("env"), "env_params": config.get("env_params")}
    if summary["greedy"]:
        conditions["evaluation_episodes"] = header["evaluation_episodes"]
    return FinishedRun(
        directory=directory,
        env=header["env"],
        algo=config["algorithm"]["name"],
        seed_ids=tuple(header["seeds"]),
        returns=np.array([np.nan if value is None else value for value in returns]),
        greedy=summary["greedy"],
        target_return=header["target_return"],
        env_steps_per_update=env_steps_per_update,
        env_steps=config["num_updates"] * env_steps_per_update,
        conditions=conditions,
        provenance=header["provenance"],
        arrays=arrays,
        identity=Identity.of(header),
    )


def _read_result_summary(directory: Path) -> dict[str, Any]:
    try:
        return _read_summary(directory)
    except FileNotFoundError:
        raise _unfinished(directory) from None
    except CorruptFileError as error:
        raise _damaged(directory / files.SUMMARY, directory) from error


def _read_result_arrays(
    directory: Path, header: dict[str, Any], summary: dict[str, Any]
) -> dict[str, ndarray]:
    """Read the arrays of a finished run; where they are damaged, from its records."""
    path = directory / files.METRICS
    try:
        return read_metrics(directory, summary["metrics"])
    except (OSError, ValueError) as error:
        try:
            arrays = restore_records(directory, summary["updates"]).arrays()
        except (OSError, ValueError, CorruptFileError, KeyError):
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise error from None
            raise _damaged(path, directory) from error
    warnings.warn(
        f"{shown(path)} is missing or damaged; the records are read. To write it again: "
        f"{resume_command(directory)}",
        stacklevel=4,
    )
    failed_at = np.array([seed["failed_at"] for seed in summary["seeds"]], np.int32)
    return arrays | {"seed_ids": np.array(header["seeds"]), "failed_at": failed_at}


def read_metrics(directory: Path, digest: str | None = None) -> dict[str, ndarray]:
    """Read the arrays of a finished run.

    **Arguments:** `digest` is their SHA-256, which a summary has.

    **Raises:** `OSError` or `ValueError` where they cannot be read, or have changed.
    """
    path = directory / files.METRICS
    if digest is not None and files.sha256(path) != digest:
        raise ValueError(f"{path} is not the file that its {files.SUMMARY} was written for")
    arrays = files.read_arrays(path)
    arrays.pop(MARK, None)
    if not _are_results(arrays):
        raise ValueError(f"{path} is damaged: it has not the arrays of a result")
    return arrays


def _are_results(arrays: dict[str, ndarray]) -> bool:
    """Whether these are the arrays that a run writes; a directory may be a stranger's."""
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        return False
    shapes = {name: array.shape for name, array in arrays.items()}
    records, seeds = shapes.get(UPDATES, ()), shapes.get("seed_ids", ())
    is_whole = len(records) == len(seeds) == 1 and min(*records, *seeds) > 0
    metrics = [shapes.get(field.name) for field in dataclasses.fields(Metrics)]
    has_all = shapes.get("failed_at") == seeds and set(metrics) == {(*seeds, *records)}
    return is_whole and has_all


def _read_summary(directory: Path) -> dict[str, Any]:
    """Read the summary of a run.

    **Raises:** `FileNotFoundError`, or `CorruptFileError` where it is damaged or no run's.
    """
    summary = read_checked_json(directory / files.SUMMARY)
    require_readable(f"{shown(directory / files.SUMMARY)!r}", summary)
    summary = with_defaults(shown(directory / files.SUMMARY), "summary", summary)
    try:
        numbers = [seed["failed_at"] for seed in summary["seeds"]]
        returns = [seed["episode_return"] for seed in summary["seeds"]]
        causes = [seed["cause"] for seed in summary["seeds"]]
        times = [summary["times"][name] for name in ("compile", "run", "evaluate")]
    except (KeyError, TypeError):
        numbers, returns, causes, times = [None], [], [], []
    is_sound = all(isinstance(number, int) for number in numbers)
    is_sound &= all(isinstance(value, int | float | None) for value in (*returns, *times))
    is_sound &= all(isinstance(cause, str | None) for cause in causes)
    if not is_sound:
        raise CorruptFileError(f"{files.SUMMARY} is not one that purerl has written")
    return summary


def _unfinished(directory: Path) -> ValueError:
    return ValueError(
        f"{shown(directory)!r} is not finished; go on with it: {resume_command(directory)}"
    )


def _damaged(path: Path, directory: Path) -> ValueError:
    return ValueError(f"{shown(path)!r} is damaged; write it again: {resume_command(directory)}")


def read_summary(directory: Path, config: Config) -> dict[str, Any] | None:
    """Read the summary of a run; None where there is none, or that of another budget."""
    try:
        summary = _read_summary(directory)
    except (FileNotFoundError, CorruptFileError):
        return None
    return summary if summary["num_updates"] == config.num_updates else None


def has_metrics(directory: Path, digest: str | None = None) -> bool:
    """Whether the arrays of a finished run can be read; `digest` as in `read_metrics`."""
    try:
        return bool(read_metrics(directory, digest))
    except (OSError, ValueError):
        return False


def trained_updates(directory: Path, config: Config) -> int | None:
    """The updates of a config's result, by its summary or its arrays; None where there is none."""
    summary = read_summary(directory, config)
    if summary is not None:
        return summary["updates"]
    updates = read_metrics(directory)[UPDATES][-1] if has_metrics(directory) else None
    return config.num_updates if updates == config.num_updates else None


def write_records_again(directory: Path) -> None:
    """Where records up to the newest checkpoint are damaged, write them again from the metrics.

    **Raises:** `RunError` where they cannot be written, `ValueError` where something is in the way.
    """
    updates = latest_checkpoint(directory, warn=False)
    damage = None if updates is None else find_damage(directory, updates, records=True)
    if updates is None or damage is None or not has_metrics(directory):
        return
    arrays, manifest = read_metrics(directory), read_manifest(directory, updates)
    name = f"{RECORDS}/{0:09d}-{updates:09d}.npz"
    is_result = arrays[UPDATES][-1] == updates
    has_seeds = arrays["seed_ids"].tolist() == manifest["header"]["seeds"]
    if not (is_result and has_seeds):
        return
    require_own_names(directory, start=updates)
    warnings.warn(f"{damage}; the records are written again from {files.METRICS}.", stacklevel=4)
    records = {key: value for key, value in arrays.items() if key not in ("seed_ids", "failed_at")}
    identity = Identity.of(manifest)
    with explaining_write_errors(f"{shown(directory / name)} cannot be written"):
        (directory / RECORDS).mkdir(exist_ok=True)
        digest = files.write_arrays(directory / name, {**identity.arrays(), **records})
        manifest["records"] = {name: digest}
        write_checked_json(directory / CHECKPOINTS / str(updates) / MANIFEST, manifest)


def had_no_agents_left(directory: Path, updates: int) -> bool:
    """Whether a run has ended after so many updates since all its agents had failed."""
    try:
        summary = _read_summary(directory)
    except (FileNotFoundError, CorruptFileError):
        return False
    has_failed = all(seed["failed_at"] >= 0 for seed in summary["seeds"])
    return has_failed and summary["updates"] == updates


def complete_at(directory: Path) -> int | None:
    """The updates of a run of which nothing is left to train or to write; None of any other.

    Nobody writes into it, so that no lock is needed to read it.
    """
    header = find_header(directory)
    if not header or header.get("format") != FORMAT or header.get("kind") != "run":
        return None
    try:
        summary = _read_summary(directory)
    except (OSError, CorruptFileError):
        return None
    updates, budget = summary["updates"], header["config"]["num_updates"]
    is_over = updates == budget or had_no_agents_left(directory, updates)
    if not is_over or summary["num_updates"] != budget:
        return None
    if list_checkpoints(directory)[:1] != [updates] or not has_metrics(
        directory, summary["metrics"]
    ):
        return None
    return updates if find_damage(directory, updates, records=True) is None else None
