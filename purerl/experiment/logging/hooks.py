"""Hooks: what a run tells others between chunks, without waiting for them."""

import dataclasses
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy import ndarray

from purerl.evaluation import Evaluation
from purerl.experiment.hosts.stopping import is_at_once
from purerl.experiment.report.statistics import iqm
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import RunPlan
from purerl.types import Metrics

PATIENCE = 30.0  # seconds that a hook may take for its next call, once the run has ended


class Chunk(NamedTuple):
    """What a hook is given after each chunk: on the host, free to keep, not to be written to."""

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
        """One number a record, over the seeds that had not failed by then: `[records]`.

        The interquartile mean of the returns, sums of the counts, means of the rest; over the seeds
        for which they are defined, NaN where there is none.
        """
        failed = self.failed_at[:, None]
        alive = (failed < 0) | (failed >= self.record_updates)
        summed = {}
        for field in dataclasses.fields(self.metrics):
            values = np.where(alive, np.asarray(getattr(self.metrics, field.name)), np.nan)
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
    The end of the `with` waits for each as long as it gets on, and gives up, with a warning, where
    one call takes longer than `PATIENCE`; a second Ctrl-C waits for none.
    """

    def __init__(self, hooks: Sequence[Callable[[Chunk], Any]]):
        self._served = [Served(hook) for hook in hooks]

    def __bool__(self) -> bool:
        return bool(self._served)

    def __enter__(self) -> "Hooks":
        for served in self._served:
            served.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.send(None)
        if is_at_once(error):
            return
        now = time.monotonic()
        for served in self._served:
            served.wait(now)

    def send(self, chunk: Chunk | None) -> None:
        """Hand a chunk to every hook."""
        for served in self._served:
            served.waiting.put(chunk)


class Served(threading.Thread):
    """Calls one hook until the end; the first error is told, and none stops anything."""

    def __init__(self, hook: Callable[[Chunk], Any]):
        super().__init__(daemon=True)
        self.hook = hook
        self.called = getattr(hook, "__name__", type(hook).__name__)
        self.waiting: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self.got_on = time.monotonic()
        self.told = False

    def run(self) -> None:
        while (chunk := self.waiting.get()) is not None:
            self._attempt(self.hook, chunk)
        self._attempt(getattr(self.hook, "close", lambda: None))

    def wait(self, since: float) -> None:
        """Wait until it has ended, or for `PATIENCE` seconds in which it has not got on."""
        while self.is_alive() and time.monotonic() - max(since, self.got_on) < PATIENCE:
            self.join(0.05)
        if self.is_alive():
            warnings.warn(
                f"the hook {self.called} has not come back for {PATIENCE:g} seconds and is left "
                f"behind; {self.waiting.qsize() + 1} calls of it are lost. The run's own records "
                f"are complete.",
                stacklevel=4,
            )

    def _attempt(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            function(*args)
        # `SystemExit` too, which would end this thread and say nothing.
        except BaseException as error:
            if not self.told:
                warnings.warn(
                    f"the hook {self.called} failed: {type(error).__name__}: {error}; training "
                    f"goes on, and the run's own records are complete.",
                    stacklevel=1,
                )
            self.told = True
        self.got_on = time.monotonic()


def make_chunk(
    plan: RunPlan,
    directory: Path,
    updates: int,
    metrics: Metrics,
    record_updates: ndarray,
    failed_at: ndarray,
    greedy: Evaluation | None,
    sampled: Evaluation | None,
) -> Chunk:
    """A chunk and the episodes that were played after it."""
    per_update = plan.config.env_steps_per_update
    chunk = Chunk(
        directory=directory,
        updates=updates,
        env_steps=updates * per_update,
        seed_ids=plan.seed_ids,
        metrics=metrics,
        failed_at=failed_at,
        record_updates=record_updates,
        record_env_steps=record_updates * per_update,
        greedy_return=_mean_return(greedy),
        sampled_return=_mean_return(sampled),
    )
    return jax.tree.map(_read_only, chunk)


def past_chunks(
    plan: RunPlan, directory: Path, updates: int, records: Records, failed_at: ndarray
) -> Iterator[Chunk]:
    """Everything that was recorded until now, cut where episodes were played."""
    metrics, times, played = records.metrics(), records.updates(), records.evaluations()
    evaluated = [] if played is None else played.updates.tolist()
    begin = 0
    for end in sorted({*evaluated, updates}):
        within = (times > begin) & (times <= end)
        of_chunk = jax.tree.map(lambda leaf, within=within: leaf[:, within], metrics)
        failed = np.where(failed_at < end, failed_at, -1)  # as it was known then
        episodes = (None, None)
        if played is not None and end in evaluated:
            place = evaluated.index(end)
            episodes = (jax.tree.map(lambda x, i=place: x[:, i], each) for each in played[1:])
        yield make_chunk(plan, directory, end, of_chunk, times[within], failed, *episodes)
        begin = end


def _mean_return(played: Evaluation | None) -> ndarray | None:
    return None if played is None else np.asarray(played.episode_return).mean(axis=-1)


def _read_only(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray):
        return leaf
    view = leaf.view()
    view.flags.writeable = False
    return view
