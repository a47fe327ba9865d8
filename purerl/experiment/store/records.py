"""The records of a run as named NumPy arrays, and a finished run as read from its directory."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from purerl.config.config import Config
from purerl.evaluation import Evaluation, EvaluationPair
from purerl.experiment.store import files
from purerl.experiment.store.files import CorruptFileError, read_checked_json
from purerl.experiment.store.fingerprint import fingerprint
from purerl.experiment.store.header import find_header, require_readable
from purerl.types import Metrics

UPDATES = "record_updates"
EVALUATED = "evaluation_updates"


class Evaluations(NamedTuple):
    """Evaluations during a run: NumPy, `[seeds, evaluations, episodes]`; `sampled` may be None."""

    updates: Int[ndarray, " evaluations"]
    greedy: Evaluation
    sampled: Evaluation | None

    def pair(self, index: int) -> EvaluationPair:
        """One of the evaluations, `[seeds, episodes]`."""
        pair = EvaluationPair(self.greedy, self.sampled)
        return jax.tree.map(lambda leaf: leaf[:, index], pair)


class Records:
    """The records of a run so far.

    Arrays are named after the fields of `Metrics`, `[seeds, records]`, and of `Evaluation` with
    `greedy_` or `sampled_` before, `[seeds, evaluations, ...]`. `record_updates` and
    `evaluation_updates` say after how many updates each was taken.
    """

    def __init__(self):
        self._pieces: list[dict[str, ndarray]] = []
        self._num_saved = 0

    def append(self, piece: Mapping[str, ndarray]) -> None:
        """Add records by name, later than all before."""
        self._pieces.append(dict(piece))

    def add_metrics(self, metrics: Metrics, updates: Int[ndarray, " records"]) -> None:
        """Add the metrics of a chunk."""
        names = (field.name for field in dataclasses.fields(metrics))
        self.append({UPDATES: updates, **{name: getattr(metrics, name) for name in names}})

    def add_evaluation(self, updates: int, pair: EvaluationPair) -> None:
        """Add an evaluation of every seed."""
        piece = {EVALUATED: np.array([updates])}
        for kind, evaluation in pair._asdict().items():
            if evaluation is not None:
                for field in dataclasses.fields(evaluation):
                    array = np.asarray(getattr(evaluation, field.name))
                    piece[f"{kind}_{field.name}"] = array[:, None]
        self.append(piece)

    def arrays(self) -> dict[str, ndarray]:
        """All records, each name one array."""
        return _joined(self._pieces)

    def updates(self) -> Int[ndarray, " records"]:
        """The updates trained at the end of each record."""
        return self.arrays()[UPDATES]

    def take_unsaved(self) -> dict[str, ndarray]:
        """The records since the last call."""
        pieces, self._num_saved = self._pieces[self._num_saved :], len(self._pieces)
        return _joined(pieces)

    def is_evaluated(self, updates: int) -> bool:
        """Whether there is an evaluation after so many updates."""
        return any(updates in piece.get(EVALUATED, ()) for piece in self._pieces)

    def metrics(self) -> Metrics:
        """All metrics, `[seeds, records]`."""
        arrays = self.arrays()
        return Metrics(**{field.name: arrays[field.name] for field in dataclasses.fields(Metrics)})

    def evaluations(self) -> Evaluations | None:
        """All evaluations, `[seeds, evaluations, ...]`; None without."""
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
    def kind(self) -> str:
        """The name of `returns`."""
        return "greedy return" if self.greedy else "last return in training"

    @property
    def failed_seeds(self) -> tuple[int, ...]:
        """The ids of the seeds that stopped being finite."""
        return self._ids(self.arrays["failed_at"] >= 0)

    @property
    def seeds_without_episode(self) -> tuple[int, ...]:
        """The ids of the seeds that have not failed, but have ended no episode."""
        return self._ids(np.isnan(self.returns) & (self.arrays["failed_at"] < 0))

    def _ids(self, mask: ndarray) -> tuple[int, ...]:
        return tuple(seed for seed, chosen in zip(self.seed_ids, mask, strict=True) if chosen)


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
    if arrays[UPDATES][-1] != config["num_updates"]:
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


def shortest_names(directories: Sequence[Path]) -> list[str]:
    """Shorten each path to the last parts that distinguish it from the others.

    **Raises:** `ValueError` where one is named twice.
    """
    parts = [directory.resolve().parts for directory in directories]
    for directory, own in zip(directories, parts, strict=True):
        if parts.count(own) > 1:
            raise ValueError(f"{str(directory)!r} is named twice; name each run once.")

    def shortest(own: tuple[str, ...]) -> str:
        others = [other for other in parts if other is not own]
        for count in range(1, len(own)):
            if all(other[-count:] != own[-count:] for other in others):
                return "/".join(own[-count:])
        return str(Path(*own))

    return [shortest(own) for own in parts]


def read_summary(directory: Path, config: Config) -> dict[str, Any] | None:
    """Read the summary of a run; None where there is none, or that of another config."""
    try:
        summary = read_checked_json(directory / files.SUMMARY)
    except (FileNotFoundError, CorruptFileError):
        return None
    is_of_config = result_identity(config).items() <= summary.items()
    return summary if is_of_config and (directory / files.METRICS).exists() else None


def result_identity(config: Config) -> dict[str, Any]:
    return {"fingerprint": fingerprint(config), "num_updates": config.num_updates}
