"""Finished runs, read from their directories without building anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.experiment.store import files
from purerl.experiment.store.header import find_header
from purerl.experiment.store.records import UPDATES
from purerl.experiment.store.signed import DamagedError, read_signed


class Saved(NamedTuple):
    """What a run directory tells of a finished run."""

    directory: Path
    env: str
    algo: str
    seed_ids: tuple[int, ...]
    returns: Float[ndarray, " seeds"]
    """NaN where the seed failed, or no episode of it ended."""
    greedy: bool
    """Whether `returns` are means of greedy episodes, or the last in training."""
    target_return: float | None
    env_steps_per_update: int
    arrays: dict[str, ndarray]
    """`metrics.npz`: each metric `[seeds, records]`, evaluations, `seed_ids`, `failed_at`."""

    @property
    def kind(self) -> str:
        """What `returns` are, in words."""
        return "greedy return" if self.greedy else "last return in training"

    @property
    def failed_seeds(self) -> tuple[int, ...]:
        """The ids of the seeds that stopped being finite."""
        return self._ids(self.arrays["failed_at"] >= 0)

    @property
    def silent_seeds(self) -> tuple[int, ...]:
        """The ids of the seeds that have not failed, and in which no episode ended."""
        return self._ids(np.isnan(self.returns) & (self.arrays["failed_at"] < 0))

    def _ids(self, which: ndarray) -> tuple[int, ...]:
        return tuple(seed for seed, each in zip(self.seed_ids, which, strict=True) if each)


def read_run(directory: str | Path) -> Saved:
    """Read a finished run.

    **Raises:** `ValueError` where the directory holds none, it is not finished, or is damaged.
    """
    directory = Path(directory)
    header = find_header(directory)
    if header is None:
        what = "holds no run" if directory.is_dir() else "is not there"
        raise ValueError(f"{str(directory)!r} {what}; name the directory of a run.")
    if not header:
        raise _damaged(directory / files.HEADER, directory)
    if header["kind"] == "sweep":
        raise ValueError(f"{str(directory)!r} holds a sweep; name the directory of a run.")
    config = header["config"]
    summary, arrays = _read_result(directory)
    if arrays[UPDATES][-1] != config["num_updates"]:
        raise _unfinished(directory)
    returns = [each["episode_return"] for each in summary["seeds"]]
    return Saved(
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
    """The summary and the arrays that a run leaves when it is finished."""
    try:
        arrays = files.read_arrays(directory / files.METRICS)
        summary = read_signed(directory / files.SUMMARY)
    except FileNotFoundError:
        raise _unfinished(directory) from None
    except DamagedError as error:
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


def short_names(directories: Sequence[Path]) -> list[str]:
    """The last parts of each path, as few as tell it from the others.

    **Raises:** `ValueError` where one is named twice.
    """
    parts = [directory.resolve().parts for directory in directories]
    for directory, each in zip(directories, parts, strict=True):
        if parts.count(each) > 1:
            raise ValueError(f"{str(directory)!r} is named twice; name each run once.")

    def shortest(each: tuple[str, ...]) -> str:
        others = [other for other in parts if other is not each]
        for count in range(1, len(each)):
            if all(other[-count:] != each[-count:] for other in others):
                return "/".join(each[-count:])
        return str(Path(*each))

    return [shortest(each) for each in parts]
