"""What hooks are told, and that no hook can change it for the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy import ndarray

from purerl.evaluation import Evaluation
from purerl.experiment.logging.hooks import Chunk
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import RunPlan
from purerl.types import Metrics


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
