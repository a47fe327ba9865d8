"""Whether a run can fit at all, by counting: before anything is compiled, made or written."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from purerl.checks import require_int32, require_positive_int
from purerl.config.config import Config
from purerl.experiment.hosts.memory import available_bytes, host_bytes, require_bytes, tree_bytes
from purerl.seeds import require_seed_count, seed_ids
from purerl.training import TrainState, init
from purerl.types import Metrics

NUMBER = 4  # bytes of a float32, or of an int32


def require_room(
    config: Config,
    seeds: int | Sequence[int],
    *,
    settings: int = 1,
    episodes: int = 0,
    memory_limit: int | None = None,
    mesh: Mesh | None = None,
) -> None:
    """Refuse a run that is larger than the memory of its devices or of the host.

    Counted is the least that it takes: a rollout, the states, the records and the episodes of an
    evaluation. What its programs need besides, they say when they are compiled.

    **Arguments:** `seeds` is a count or the ids; `config` is one of the `settings` of a sweep.
    """
    count = int(seeds) if isinstance(seeds, int | np.integer) else len(seed_ids(seeds))
    require_seed_count(count)
    if memory_limit is not None:
        require_positive_int("memory_limit", memory_limit)
    state = state_shape(config)
    devices = jax.local_devices() if mesh is None else mesh.local_devices
    limit = available_bytes(devices) if memory_limit is None else memory_limit
    limit = None if limit is None else limit * jax.device_count()
    require_bytes(
        f"num_envs = {config.num_envs} and rollout_length = {config.rollout_length}",
        tree_bytes(state) + rollout_bytes(state, config),
        limit,
        "use less of one, or smaller networks",
    )
    if episodes:
        require_int32("evaluation_episodes", episodes)
        require_bytes(
            f"evaluation_episodes = {episodes}",
            episodes * tree_bytes((state.envs.obs, state.envs.state)) // config.num_envs,
            limit,
            "use fewer",
        )
    agents = f"seeds = {count}" + f" with {settings} settings" * (settings > 1)
    count *= settings
    require_bytes(agents, count * tree_bytes(state), host_bytes(), "use fewer")
    require_bytes(
        f"{config.num_records} records of {agents}",
        count * config.num_records * len(dataclasses.fields(Metrics)) * NUMBER,
        host_bytes(),
        "use a larger log_every, or fewer total_steps",
    )


def state_shape(config: Config) -> TrainState:
    """Shapes and dtypes of the state of one agent."""
    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), config)


def rollout_bytes(state: Any, config: Config) -> int:
    """Bytes of the observations and the rewards of one rollout."""
    rewards = NUMBER * config.num_envs
    return config.rollout_length * (tree_bytes(state.envs.obs) + rewards)
