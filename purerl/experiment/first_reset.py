"""First observations, looked at by value before anything is trained on them."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from numpy import ndarray

from purerl.config.config import Config
from purerl.config.sweeps import setting_at
from purerl.envs import Discrete, Space
from purerl.experiment.batches import SeedBatches
from purerl.experiment.failures import (
    MAX_REPLAYED,
    NOT_AGAIN,
    NOT_KNOWN,
    agent_name,
    replayed_causes,
)
from purerl.experiment.hosts.processes import all_gather, mark_raised_by_all
from purerl.experiment.store.spec import RunSpec
from purerl.training import TrainState


def require_sound_start(
    spec: RunSpec, batches: SeedBatches, states: list[TrainState], axes: Config | None = None
) -> None:
    """Refuse first observations that are NaN, or no element of a discrete space.

    Infinite ones are refused where an agent would fail in its first update by them. Each process
    looks at its own seeds, and all raise the same.
    """
    problem, infinite = _look(spec, batches, states, axes)
    told = all_gather([problem, infinite])
    problem = next((problem for problem, _ in told if problem), None)
    infinite = sorted({index for _, indices in told for index in indices})[:MAX_REPLAYED]
    if infinite and not problem:
        causes = replayed_causes(spec, batches.merge(states), infinite, axes)
        failing = {i: why for i, why in causes.items() if why not in (NOT_AGAIN, NOT_KNOWN)}
        if failing:
            index, cause = next(iter(failing.items()))
            problem = _problem(
                spec,
                agent_name(spec, index, axes),
                f"infinite, and fails its first update (first not finite: {cause}); bound it, or "
                f"give a policy and a baseline that read it",
            )
    if problem:
        raise mark_raised_by_all(ValueError(problem))


def _problem(spec: RunSpec, agent: str, what: str) -> str:
    return f"{type(spec.config.env).__name__}.reset: the first observation of {agent} is {what}."


def _look(
    spec: RunSpec, batches: SeedBatches, states: list[TrainState], axes: Config | None
) -> tuple[str | None, list[int]]:
    """What is wrong with an observation of this process, and the agents with infinite ones."""
    config = spec.config if axes is None else setting_at(spec.config, axes)
    space, infinite = config.env_spec.obs_space, set()
    for indices, obs in _own_observations(batches, states):
        wrong = _wrong_value(obs, space)
        if wrong is not None:
            row, what = wrong
            return _problem(spec, agent_name(spec, int(indices[row]), axes), what), []
        infinite |= {*indices[np.isinf(obs).any(axis=tuple(range(1, obs.ndim)))].tolist()}
    return None, sorted(infinite)[:MAX_REPLAYED]


def _own_observations(
    batches: SeedBatches, states: list[TrainState]
) -> Iterator[tuple[ndarray, ndarray]]:
    """The first observations `[agents, envs, ...]` on each device of this process, with indices."""
    size, last = batches.programs.seed_batch, batches.programs.num_agents - 1
    for i, state in enumerate(states):
        shards: Any = [(slice(0, None), state.envs.obs)]
        if isinstance(state.envs.obs, jax.Array):
            shards = [(shard.index[0], shard.data) for shard in state.envs.obs.addressable_shards]
        for where, data in shards:
            first = i * size + (where.start or 0)  # beyond the last, the last is repeated
            end = min((i + 1) * size - 1, last)
            yield np.minimum(first + np.arange(len(data)), end), np.asarray(data)


def _wrong_value(obs: ndarray, space: Space) -> tuple[int, str] | None:
    """The row of a value that no agent can learn from, and what is wrong with it."""
    bad, what = np.isnan(obs), "{:g}; an agent cannot learn from that: return numbers"
    if isinstance(space, Discrete) and not bad.any():
        bad = (obs < 0) | (obs >= space.n) | (obs != np.floor(obs))
        what = f"{{:g}}, which is not one of the integers 0 to {space.n - 1} of {space}; declare "
        what += "the space that it is from, or return what the space holds"
    if not bad.any():
        return None
    position = np.argwhere(bad)[0]
    return int(position[0]), what.format(float(obs[tuple(position)]))
