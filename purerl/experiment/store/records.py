"""What a run records, chunk by chunk, as NumPy arrays by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from purerl.config.config import Config
from purerl.evaluation import Evaluation
from purerl.experiment.store import files
from purerl.experiment.store.files import DamagedError, read_signed
from purerl.experiment.store.fingerprint import fingerprint
from purerl.experiment.store.header import find_header
from purerl.types import Metrics

if TYPE_CHECKING:
    pass

UPDATES = "record_updates"
EVALUATED = "evaluation_updates"


class Evaluations(NamedTuple):
    """Evaluations during a run. Where actions were not sampled too, `sampled` is None."""

    updates: Int[ndarray, " evaluations"]
    greedy: Evaluation
    """NumPy, `[seeds, evaluations, episodes]`."""
    sampled: Evaluation | None


class Records:
    """The records of a run so far.

    Arrays have names: those of `Metrics`, `[seeds, records]`; those of `Evaluation` behind
    `greedy_` and `sampled_`, `[seeds, evaluations, ...]`; and the updates at which each was taken,
    `record_updates` and `evaluation_updates`.
    """

    def __init__(self):
        self._pieces: list[dict[str, ndarray]] = []
        self._num_saved = 0

    def append(self, piece: Mapping[str, ndarray]) -> None:
        """Add what was recorded between two moments."""
        self._pieces.append(dict(piece))

    def add_metrics(self, metrics: Metrics, updates: Int[ndarray, " records"]) -> None:
        """Add the metrics of a chunk."""
        names = (field.name for field in dataclasses.fields(metrics))
        self.append({UPDATES: updates, **{name: getattr(metrics, name) for name in names}})

    def add_evaluation(
        self, updates: int, greedy: Evaluation | None, sampled: Evaluation | None
    ) -> None:
        """Add an evaluation of every seed."""
        piece = {EVALUATED: np.array([updates])}
        for kind, evaluation in (("greedy", greedy), ("sampled", sampled)):
            if evaluation is not None:
                for field in dataclasses.fields(evaluation):
                    array = np.asarray(getattr(evaluation, field.name))
                    piece[f"{kind}_{field.name}"] = array[:, None]
        self.append(piece)

    def arrays(self) -> dict[str, ndarray]:
        """Everything recorded, each name one array."""
        return _joined(self._pieces)

    def updates(self) -> Int[ndarray, " records"]:
        """The updates trained at the end of each record."""
        return self.arrays()[UPDATES]

    def unsaved(self) -> dict[str, ndarray]:
        """What was recorded since this was last asked for."""
        pieces, self._num_saved = self._pieces[self._num_saved :], len(self._pieces)
        return _joined(pieces)

    def is_evaluated(self, updates: int) -> bool:
        """Whether an evaluation after so many updates is there."""
        return any(updates in piece.get(EVALUATED, ()) for piece in self._pieces)

    def metrics(self) -> Metrics:
        """All metrics, `[seeds, records]`."""
        arrays = self.arrays()
        return Metrics(**{field.name: arrays[field.name] for field in dataclasses.fields(Metrics)})

    def evaluations(self) -> Evaluations | None:
        """All evaluations, `[seeds, evaluations, ...]`; None where there was none."""
        arrays = self.arrays()
        if EVALUATED not in arrays:
            return None
        greedy, sampled = (_evaluation(arrays, kind) for kind in ("greedy_", "sampled_"))
        assert greedy is not None
        return Evaluations(arrays[EVALUATED], greedy, sampled)


def _joined(pieces: list[dict[str, ndarray]]) -> dict[str, ndarray]:
    joined = {}
    for name in dict.fromkeys(name for piece in pieces for name in piece):
        axis = 0 if name in (UPDATES, EVALUATED) else 1
        parts = [piece[name] for piece in pieces if name in piece]
        joined[name] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)
    return joined


def _evaluation(arrays: Mapping[str, ndarray], prefix: str) -> Evaluation | None:
    names = [field.name for field in dataclasses.fields(Evaluation)]
    if prefix + names[0] not in arrays:
        return None
    played: dict[str, Any] = {name: arrays[prefix + name] for name in names}
    return Evaluation(**played)


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


def read_summary(directory: Path, config: Config) -> dict[str, Any] | None:
    """What `write_result` has told of a run; None where it has not, or of another config."""
    try:
        summary = read_signed(directory / files.SUMMARY)
    except (FileNotFoundError, DamagedError):
        return None
    of_config = _result_of(config).items() <= summary.items()
    return summary if of_config and (directory / files.METRICS).exists() else None


def _result_of(config: Config) -> dict[str, Any]:
    return {"fingerprint": fingerprint(config), "num_updates": config.num_updates}
