"""Trains many agents, one for each seed and each setting of a sweep, over devices and cores."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int, Key, PyTree

from purerl.checks import is_typed_key, short_repr
from purerl.compute.mapping import block_size, map_seeds
from purerl.compute.mesh import ALONE, ENVS, SEEDS, Layout, layout_of, require_mesh
from purerl.compute.trees import Sums
from purerl.config.config import Config
from purerl.evaluation import EvaluationPair, play_episodes
from purerl.networks.normalization import RewardNormalizer
from purerl.rollout import EnvCarry
from purerl.training import TrainState, advance_window, init, train
from purerl.types import Metrics


def train_seeds(
    keys: Key[Array, " seeds"], config: Config, *, mesh: Mesh | None = None
) -> tuple[TrainState, Metrics]:
    """Train one agent for each key, compiled, on the devices of a mesh or on all local ones.

    The agents are those of `jax.vmap(train, (0, None))(keys, config)`. Their seeds are spread over
    the devices. An accelerator maps its seeds with `vmap`. A CPU takes one block after another, so
    that the arrays stay in the cache (see `block_size`).

    **Arguments:** `mesh` has an axis `seeds`, and an axis `envs` to spread environments too.

    **Returns:** states and metrics with a leading axis `[seeds]`.

    **Raises:** `ValueError` where `keys` is not an array of typed keys `[seeds]`, or the mesh does
    not fit.
    """
    require_keys(keys)
    if mesh is not None:
        mesh = require_mesh(mesh, config.num_envs)
    return map_seeds(
        train,
        keys,
        config,
        mesh=mesh,
        block=block_size(config.num_envs),
        shardings=state_shardings,
        with_layout=True,
    )


def require_keys(keys: Any) -> None:
    """Refuse anything but a batch of at least one typed key."""
    actual = f"{keys.dtype}{list(keys.shape)}" if hasattr(keys, "dtype") else short_repr(keys)
    if not is_typed_key(keys) or keys.ndim != 1 or not len(keys):
        raise ValueError(
            f"keys is {actual}; give an array of one typed key a seed, such as "
            f"purerl.seed_keys(0, 8)."
        )


class Agent(NamedTuple):
    """One agent of many: its key, and the leaves of its config that differ between agents."""

    key: Key[Array, "*batch"]
    per_agent: Config
    """None where all agents share a leaf: `eqx.combine(per_agent, shared)` is the config."""


def batch_agents(
    keys: Key[Array, " seeds"], configs: Config, axes: Config | None = None
) -> tuple[Agent, Config]:
    """Every setting of a sweep with every seed, as `[settings · seeds]`; and the shared leaves.

    **Arguments:** `configs` and `axes` are those of `sweep`; without `axes`, one config.
    """
    if axes is None:
        return Agent(keys, jax.tree.map(lambda leaf: None, configs)), configs
    is_varied = jax.tree.map(lambda axis: axis == 0, axes, is_leaf=lambda axis: axis is None)
    per_agent, shared = eqx.partition(configs, is_varied)
    num_settings = jax.tree.leaves(per_agent)[0].shape[0]
    setting, seed = np.divmod(np.arange(num_settings * len(keys)), len(keys))
    return Agent(keys[seed], jax.tree.map(lambda leaf: leaf[setting], per_agent)), shared


def train_agent(agent: Agent, shared: Config, layout: Layout = ALONE) -> tuple[TrainState, Metrics]:
    """`train`, for one entry of a batch of agents."""
    return train(agent.key, eqx.combine(agent.per_agent, shared), layout=layout)


def train_sweep(
    keys: Key[Array, " seeds"],
    configs: Config,
    axes: Config,
    *,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
    """Train every seed with every setting of a sweep, compiled once, as `train_seeds` does.

    **Returns:** states and metrics with leading axes `[settings, seeds]`.
    """
    require_keys(keys)
    if mesh is not None:
        mesh = require_mesh(mesh, configs.num_envs)
    agents, shared = batch_agents(keys, configs, axes)
    out = map_seeds(
        train_agent,
        agents,
        shared,
        mesh=mesh,
        block=block_size(shared.num_envs),
        shardings=state_shardings,
        with_layout=True,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, len(keys), *leaf.shape[1:]), out)


def state_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """The sharding over a mesh of each leaf of agents' states, or of other trees of many agents.

    Leaves with an axis of environments behind that of the agents are spread over `envs` too.
    """
    env_spec = P(SEEDS) if layout_of(mesh).envs == 1 else P(SEEDS, ENVS)

    def has_envs(node):
        return isinstance(node, EnvCarry | RewardNormalizer)

    def node_shardings(node):
        spec = env_spec if isinstance(node, EnvCarry) else P(SEEDS)
        specs = jax.tree.map(lambda leaf: spec, node)
        if isinstance(node, RewardNormalizer):
            specs = eqx.tree_at(lambda stats: stats.discounted_return, specs, env_spec)
        return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)

    return jax.tree.map(node_shardings, tree, is_leaf=has_envs)


def init_agent(agent: Agent, shared: Config, layout: Layout = ALONE) -> TrainState:
    """`init`, for one entry of a batch of agents."""
    return init(agent.key, eqx.combine(agent.per_agent, shared), layout=layout)


@dataclasses.dataclass(frozen=True)
class AdvanceAgent:
    """Train one agent for the updates of a chunk that are in a window."""

    num_updates: int

    def __call__(
        self,
        state: TrainState,
        agent: Agent,
        window: Int[Array, "2"],
        shared: Config,
        layout: Layout = ALONE,
    ) -> tuple[TrainState, Sums]:
        config = eqx.combine(agent.per_agent, shared)
        return advance_window(state, config, self.num_updates, window, layout)


@dataclasses.dataclass(frozen=True)
class EvaluateAgent:
    """Play episodes of one agent: greedy ones, ones with sampled actions, or both.

    The keys depend on the agent and on its updates so far. Neither kind changes those of the other.
    """

    num_episodes: int
    max_steps: int
    greedy: bool = True
    sampled: bool = False

    def __call__(
        self, policy: Any, agent: Agent, updates: Int[Array, ""], shared: Config
    ) -> EvaluationPair:
        config = eqx.combine(agent.per_agent, shared)
        greedy_key, sampled_key = jax.random.split(jax.random.fold_in(agent.key, updates))

        def play(key, greedy):
            return play_episodes(
                key, policy, config, self.num_episodes, self.max_steps, greedy=greedy
            )

        return EvaluationPair(
            greedy=play(greedy_key, True) if self.greedy else None,
            sampled=play(sampled_key, False) if self.sampled else None,
        )
