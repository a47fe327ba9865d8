"""What a run records, chunk by chunk, as NumPy arrays by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from purerl.evaluation import Evaluation
from purerl.types import Metrics

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
