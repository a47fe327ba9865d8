"""Finished runs, read from their directories without building anything."""

from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.config.config import Config
from purerl.experiment.store import files
from purerl.experiment.store.files import CorruptFileError, read_checked_json
from purerl.experiment.store.fingerprint import fingerprint
from purerl.experiment.store.header import find_header, require_readable
from purerl.experiment.store.records import UPDATES


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
    arrays: dict[str, ndarray]  # `Records.arrays()`, `seed_ids` and `failed_at`

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
    """Read a finished run.

    **Raises:** `ValueError` where there is no run, or it is not finished or is damaged.
    """
    directory = Path(directory)
    header = find_header(directory)
    if header is None:
        problem = "holds no run" if directory.is_dir() else "is not there"
        raise ValueError(f"{str(directory)!r} {problem}; name the directory of a run.")
    if not header:
        raise _damaged(directory / files.HEADER, directory)
    require_readable(f"the run in {str(directory)!r}", header)
    if header["kind"] == "sweep":
        raise ValueError(f"{str(directory)!r} holds a sweep; name the directory of a run.")
    config = header["config"]
    summary, arrays = _read_result(directory)
    if arrays[UPDATES][-1] != config["num_updates"] and np.any(arrays["failed_at"] < 0):
        raise _unfinished(directory)
    returns = [seed["episode_return"] for seed in summary["seeds"]]
    return FinishedRun(
        directory=directory,
        env=header["env"],
        algo=config["algorithm"]["name"],
        seed_ids=tuple(header["seeds"]),
        returns=np.array([np.nan if value is None else value for value in returns]),
        greedy=summary["greedy"],
        target_return=header["target_return"],
        env_steps_per_update=config["num_envs"] * config["rollout_length"],
        arrays=arrays,
    )


def _read_result(directory: Path) -> tuple[dict[str, Any], dict[str, ndarray]]:
    """Read the summary and the arrays of a finished run."""
    try:
        arrays = files.read_arrays(directory / files.METRICS)
        summary = read_checked_json(directory / files.SUMMARY)
    except FileNotFoundError:
        raise _unfinished(directory) from None
    except CorruptFileError as error:
        raise _damaged(directory / files.SUMMARY, directory) from error
    except ValueError as error:
        raise _damaged(directory / files.METRICS, directory) from error
    if UPDATES not in arrays or "failed_at" not in arrays:
        raise _damaged(directory / files.METRICS, directory)
    return summary, arrays


def _unfinished(directory: Path) -> ValueError:
    return ValueError(
        f"{str(directory)!r} is not finished; go on with it: purerl resume {directory}"
    )


def _damaged(path: Path, directory: Path) -> ValueError:
    return ValueError(
        f"{str(path)!r} is damaged; remove it, and write it again: purerl resume {directory}"
    )


def read_summary(directory: Path, config: Config) -> dict[str, Any] | None:
    """Read the summary of a run; None where there is none, or that of another config."""
    try:
        summary = read_checked_json(directory / files.SUMMARY)
    except (FileNotFoundError, CorruptFileError):
        return None
    is_of_config = result_identity(config).items() <= summary.items()
    return summary if is_of_config and (directory / files.METRICS).exists() else None


def had_no_agents_left(directory: Path, updates: int) -> bool:
    """Whether a run has ended after so many updates since all its agents had failed."""
    try:
        summary = read_checked_json(directory / files.SUMMARY)
    except (FileNotFoundError, CorruptFileError):
        return False
    has_failed = all(seed["failed_at"] >= 0 for seed in summary["seeds"])
    return has_failed and summary.get("updates") == updates


def result_identity(config: Config) -> dict[str, Any]:
    """What a summary repeats of the config whose result it is."""
    return {"fingerprint": fingerprint(config), "num_updates": config.num_updates}
