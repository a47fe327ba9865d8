"""Hooks: the `Chunk` that they are called with, and the threads that call them."""

import dataclasses
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy import ndarray

from purerl.evaluation import Evaluation, EvaluationPair
from purerl.experiment.hosts.stopping import is_second_interrupt
from purerl.experiment.report.curves import LastEpisodes, episode_curve
from purerl.experiment.report.statistics import drop_nan
from purerl.experiment.store.identity import Identity
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import RunSpec
from purerl.types import Metrics

HOOK_TIMEOUT = 30.0  # seconds that one call may take, once the run has ended


class Chunk(NamedTuple):
    """What a hook is called with after each chunk: read-only arrays on the host."""

    directory: Path
    identity: Identity
    """Which run it is of."""
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
    last: LastEpisodes
    """Return and length, `[seeds]`, in the last record with an episode before this chunk."""

    def over_seeds(self) -> dict[str, ndarray]:
        """Each metric over the seeds that had not failed by then: `[records]`.

        The interquartile mean of the returns, the sum of `num_episodes`, the mean of the rest, over
        the seeds for which they are defined; NaN where there is none. A seed of which no episode
        ended in a record keeps its return and length of before, as `purerl.episode_curve` says.
        `return_seeds` is the number of seeds behind the return.
        """
        failed = self.failed_at[:, None]
        alive = (failed < 0) | (failed >= self.record_updates)
        metrics, counts = self.metrics, self.metrics.num_episodes
        curves = {
            name: episode_curve(getattr(metrics, name), counts, last=last, alive=alive)
            for name, last in self.last._asdict().items()
        }
        returns = curves["episode_return"]
        combined = {"episode_return": returns.iqm, "return_seeds": returns.num_seeds}
        for field in dataclasses.fields(self.metrics):
            if field.name in combined:
                continue
            values = np.where(alive, np.asarray(getattr(metrics, field.name)), np.nan)
            if field.name in curves:
                values = curves[field.name].seeds
            statistic = np.sum if field.name == "num_episodes" else np.mean
            defined = [drop_nan(column) for column in values.T]
            combined[field.name] = np.array(
                [float(statistic(x)) if x.size else np.nan for x in defined]
            )
        return combined


class HookRunner:
    """Calls each hook with every chunk in turn, in a thread of its own.

    A slow hook falls behind, while training goes on. Where a hook raises, a warning says so once;
    it is called again with the next chunk. At the end its method `close` is called, if it has one.
    The end of the `with` waits for each hook. It gives up, with a warning, where one call takes
    longer than `HOOK_TIMEOUT`; after a second Ctrl-C it does not wait.
    """

    def __init__(self, hooks: Sequence[Callable[[Chunk], Any]]):
        self._threads = [HookThread(hook) for hook in hooks]

    def __bool__(self) -> bool:
        return bool(self._threads)

    def __enter__(self) -> "HookRunner":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, error_type: Any, error: BaseException | None, traceback: Any) -> None:
        self.send(None)
        if is_second_interrupt(error):
            return
        run_end = time.monotonic()
        for thread in self._threads:
            thread.wait(run_end)

    def send(self, chunk: Chunk | None) -> None:
        """Hand a chunk to every hook; None ends their threads."""
        for thread in self._threads:
            thread.chunks.put(chunk)


class HookThread(threading.Thread):
    """Calls one hook; warns of its first error, and goes on after every one."""

    def __init__(self, hook: Callable[[Chunk], Any]):
        super().__init__(daemon=True)
        self.hook = hook
        self.hook_name = getattr(hook, "__name__", type(hook).__name__)
        self.chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self.last_progress = time.monotonic()
        self.has_warned = False

    def run(self) -> None:
        while (chunk := self.chunks.get()) is not None:
            self._attempt(self.hook, chunk)
        self._attempt(getattr(self.hook, "close", lambda: None))

    def wait(self, since: float) -> None:
        """Wait until the thread ends, or until one call has taken `HOOK_TIMEOUT` seconds."""
        while self.is_alive() and time.monotonic() - max(since, self.last_progress) < HOOK_TIMEOUT:
            self.join(0.05)
        if self.is_alive():
            warnings.warn(
                f"the hook {self.hook_name} has not come back for {HOOK_TIMEOUT:g} seconds and is "
                f"left behind; {self.chunks.qsize() + 1} calls of it are lost. The run's own "
                f"records are complete.",
                stacklevel=4,
            )

    def _attempt(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            function(*args)
        except BaseException as error:  # `SystemExit` too, which would end the thread silently
            if not self.has_warned:
                warnings.warn(
                    f"the hook {self.hook_name} failed: {type(error).__name__}: {error}; training "
                    f"goes on, and the run's own records are complete.",
                    stacklevel=1,
                )
            self.has_warned = True
        self.last_progress = time.monotonic()


def make_chunk(
    spec: RunSpec,
    directory: Path,
    updates: int,
    metrics: Metrics,
    record_updates: ndarray,
    failed_at: ndarray,
    played: EvaluationPair,
    last: LastEpisodes,
) -> Chunk:
    """Make the chunk of some metrics and of the episodes played after it, read-only."""
    steps_per_update = spec.config.env_steps_per_update
    chunk = Chunk(
        directory=directory,
        identity=spec.identity,
        updates=updates,
        env_steps=updates * steps_per_update,
        seed_ids=spec.seed_ids,
        metrics=metrics,
        failed_at=failed_at,
        record_updates=record_updates,
        record_env_steps=record_updates * steps_per_update,
        greedy_return=_mean_return(played.greedy),
        sampled_return=_mean_return(played.sampled),
        last=last,
    )
    return jax.tree.map(_read_only, chunk)


def replay_chunks(
    spec: RunSpec, directory: Path, updates: int, records: Records, failed_at: ndarray
) -> Iterator[Chunk]:
    """Everything recorded so far as chunks, each ending where episodes were played."""
    metrics, record_updates = records.metrics(), records.updates()
    evaluations = records.evaluations()
    evaluated = [] if evaluations is None else evaluations.updates.tolist()
    begin, last = 0, LastEpisodes.none(len(spec.seed_ids))
    for end in sorted({*evaluated, updates}):
        within = (record_updates > begin) & (record_updates <= end)
        metrics_within = jax.tree.map(lambda leaf, within=within: leaf[:, within], metrics)
        failed = np.where(failed_at < end, failed_at, -1)  # as it was known then
        played = EvaluationPair(None, None)
        if evaluations is not None and end in evaluated:
            played = evaluations.pair(evaluated.index(end))
        yield make_chunk(
            spec, directory, end, metrics_within, record_updates[within], failed, played, last
        )
        last = last.after(metrics_within)
        begin = end


def _mean_return(evaluation: Evaluation | None) -> ndarray | None:
    return None if evaluation is None else np.asarray(evaluation.episode_return).mean(axis=-1)


def _read_only(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        leaf = leaf.view()
        leaf.flags.writeable = False
    return leaf
