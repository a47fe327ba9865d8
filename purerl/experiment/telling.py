"""What hooks are told, and that no hook can change it for the others."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy import ndarray

from purerl.evaluate import Evaluation
from purerl.experiment.conduct import RunPlan
from purerl.experiment.hooks import Chunk
from purerl.experiment.records import Records
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


def past_chunk(
    plan: RunPlan, directory: Path, updates: int, records: Records, failed_at: ndarray
) -> Chunk:
    """Everything that was recorded until now, as one chunk."""
    played, last = records.evaluations(), (None, None)
    if played is not None and played.updates[-1] == updates:
        last = (jax.tree.map(lambda leaf: leaf[:, -1], each) for each in played[1:])
    metrics, times = records.metrics(), records.updates()
    return make_chunk(plan, directory, updates, metrics, times, failed_at, *last)


def _mean_return(played: Evaluation | None) -> ndarray | None:
    return None if played is None else np.asarray(played.episode_return).mean(axis=-1)


def _read_only(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray):
        return leaf
    view = leaf.view()
    view.flags.writeable = False
    return view
