"""The records of a run, chunk by chunk, as NumPy arrays by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int
from numpy import ndarray

from purerl.evaluation import Evaluation, EvaluationPair
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
        for actions, evaluation in pair._asdict().items():
            if evaluation is not None:
                for field in dataclasses.fields(evaluation):
                    array = np.asarray(getattr(evaluation, field.name))
                    piece[f"{actions}_{field.name}"] = array[:, None]
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
        greedy, sampled = (_evaluation(arrays, prefix) for prefix in ("greedy_", "sampled_"))
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
