"""Hooks: what a run tells others between chunks, without waiting for them."""

import dataclasses
import queue
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from purerl.experiment.statistics import iqm
from purerl.types import Metrics

PATIENCE = 10.0  # seconds that a run which was stopped waits for its hooks


class Chunk(NamedTuple):
    """What a hook is given after each chunk: copies on the host, free to keep."""

    directory: Path
    updates: int
    """Updates trained at the chunk's end."""
    env_steps: int
    """Environment steps of one seed at the chunk's end."""
    seed_ids: tuple[int, ...]
    metrics: Metrics
    """NumPy, `[seeds, records of this chunk]`."""
    failed_at: ndarray
    """`[seeds]`: the update at which a seed stopped being finite, −1 while it is."""
    record_updates: ndarray
    """`[records of this chunk]`: updates trained at the end of each record."""
    record_env_steps: ndarray
    """`[records of this chunk]`: environment steps of one seed at the end of each record."""
    greedy_return: ndarray | None
    """`[seeds]`: mean return of the greedy episodes played after this chunk, None without."""
    sampled_return: ndarray | None
    """`[seeds]`: the same with sampled actions."""

    def over_seeds(self) -> dict[str, ndarray]:
        """One number a record, over the seeds that have not failed: `[records of this chunk]`.

        The interquartile mean of the returns, sums of the counts, means of the rest; over the seeds
        for which they are defined, NaN where there is none.
        """
        alive = self.failed_at < 0
        summed = {}
        for field in dataclasses.fields(self.metrics):
            values = np.asarray(getattr(self.metrics, field.name))[alive]
            over = {"episode_return": iqm, "num_episodes": np.sum}.get(field.name, np.mean)
            summed[field.name] = np.array([_over_defined(over, column) for column in values.T])
        return summed


def _over_defined(statistic: Callable[[ndarray], Any], x: ndarray) -> float:
    defined = x[~np.isnan(x)]
    return float(statistic(defined)) if defined.size else np.nan


class Hooks:
    """Calls each hook in a thread of its own, with every chunk, in their order.

    A hook that raises is warned of once and called again with the next chunk; one that is slow
    falls behind, while training goes on. A hook may have a method `close`, called at the end.
    """

    def __init__(self, hooks: Sequence[Callable[[Chunk], Any]]):
        self._queues: list[queue.SimpleQueue[Chunk | None]] = [queue.SimpleQueue() for _ in hooks]
        self._threads = [
            threading.Thread(target=_serve, args=pair, daemon=True)
            for pair in zip(hooks, self._queues, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def send(self, chunk: Chunk) -> None:
        """Hand a chunk to every hook."""
        for waiting in self._queues:
            waiting.put(chunk)

    def close(self, patience: float | None = None) -> None:
        """Wait until every hook has seen every chunk, or for `patience` seconds."""
        for waiting in self._queues:
            waiting.put(None)
        start = time.monotonic()
        for thread in self._threads:
            left = None if patience is None else max(0.0, start + patience - time.monotonic())
            thread.join(left)


def _serve(hook: Callable[[Chunk], Any], waiting: "queue.SimpleQueue[Chunk | None]") -> None:
    """Call one hook until the end; the first error is told, and none stops anything."""
    name = getattr(hook, "__name__", type(hook).__name__)
    told = False

    def attempt(function: Callable[..., Any], *args: Any) -> None:
        nonlocal told
        try:
            function(*args)
        except Exception as error:
            if not told:
                warnings.warn(
                    f"the hook {name} failed: {type(error).__name__}: {error}; training goes on, "
                    f"and the run's own records are complete.",
                    stacklevel=1,
                )
            told = True

    while (chunk := waiting.get()) is not None:
        attempt(hook, chunk)
    attempt(getattr(hook, "close", lambda: None))
