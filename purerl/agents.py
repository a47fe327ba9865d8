"""Many agents: of many seeds, and of the settings of a sweep, mapped over devices and cores."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int, Key, PyTree

from purerl.checks import one_line
from purerl.compute.mapping import block_size, map_seeds
from purerl.compute.mesh import ENVS, SEEDS, over_envs, require_mesh
from purerl.config.config import Config
from purerl.evaluation import Evaluation, evaluate
from purerl.networks.normalization import RewardScale
from purerl.rollout import EnvCarry
from purerl.training import TrainState, advance, init, train
from purerl.types import Metrics


def train_seeds(
    keys: Key[Array, " seeds"], config: Config, *, mesh: Mesh | None = None
) -> tuple[TrainState, Metrics]:
    """Train one agent for each key, compiled, on the devices of a mesh or on all local ones.

    The same agents as `jax.vmap(train, (0, None))(keys, config)`, mapped as the platform likes
    best: seeds are spread over the devices; on each, an accelerator maps them with `vmap`, a CPU
    one block after another, where their arrays stay in the cache (see `block_size`).

    **Arguments:** `mesh` has an axis `seeds`, and where the environments of each agent are spread
    too, one `envs`.

    **Returns:** states and metrics with a leading axis `[seeds]`.

    **Raises:** `ValueError` where `keys` is not an array of typed keys `[seeds]`, or the mesh does
    not fit.
    """
    require_keys(keys)
    if mesh is not None:
        mesh = require_mesh(mesh, config.num_envs)
    block = block_size(config.num_envs)
    return map_seeds(train, keys, config, mesh=mesh, block=block, shardings=state_shardings)


def require_keys(keys: Any) -> None:
    """Refuse what is no batch of typed keys, or has none."""
    told = f"{keys.dtype}{list(keys.shape)}" if hasattr(keys, "dtype") else one_line(keys)
    is_key = hasattr(keys, "dtype") and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not is_key or keys.ndim != 1 or not len(keys):
        raise ValueError(
            f"keys is {told}; give an array of one typed key a seed, such as "
            f"purerl.seed_keys(0, 8)."
        )


class Agent(NamedTuple):
    """One agent of many: its key, and the leaves of its config that differ between agents."""

    key: Key[Array, "*batch"]
    varied: Config
    """None where all agents have the same, so that `eqx.combine(varied, fixed)` is the config."""


def agents_of(
    keys: Key[Array, " seeds"], configs: Config, axes: Config | None = None
) -> tuple[Agent, Config]:
    """Every seed with every setting of a sweep: one batch `[settings · seeds]`, and what is fixed.

    **Arguments:** `configs` and `axes` are those of `sweep`; without `axes`, one config.
    """
    if axes is None:
        return Agent(keys, jax.tree.map(lambda leaf: None, configs)), configs
    is_varied = jax.tree.map(lambda axis: axis == 0, axes, is_leaf=lambda axis: axis is None)
    varied, fixed = eqx.partition(configs, is_varied)
    num_settings = jax.tree.leaves(varied)[0].shape[0]
    setting, seed = np.divmod(np.arange(num_settings * len(keys)), len(keys))
    return Agent(keys[seed], jax.tree.map(lambda leaf: leaf[setting], varied)), fixed


def train_agent(agent: Agent, fixed: Config) -> tuple[TrainState, Metrics]:
    """`train`, for one entry of a batch of agents."""
    return train(agent.key, eqx.combine(agent.varied, fixed))


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
    agents, fixed = agents_of(keys, configs, axes)
    block = block_size(fixed.num_envs)
    out = map_seeds(train_agent, agents, fixed, mesh=mesh, block=block, shardings=state_shardings)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, len(keys), *leaf.shape[1:]), out)


def state_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """How the leaves of states, or of anything else of agents, are laid out over a mesh.

    What has an axis of environments behind that of the agents is spread over `envs` too.
    """

    def one(node):
        shared = P(SEEDS) if over_envs(mesh) == 1 else P(SEEDS, ENVS)
        is_shared = isinstance(node, EnvCarry)
        specs = jax.tree.map(lambda leaf: shared if is_shared else P(SEEDS), node)
        if isinstance(node, RewardScale):
            specs = eqx.tree_at(lambda scale: scale.discounted_return, specs, shared)
        return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)

    return jax.tree.map(one, tree, is_leaf=lambda node: isinstance(node, EnvCarry | RewardScale))


@dataclasses.dataclass(frozen=True)
class Start:
    """The state of one agent before training. It is a value, so that equal ones are one program."""

    def __call__(self, agent: Agent, fixed: Config) -> TrainState:
        return init(agent.key, eqx.combine(agent.varied, fixed))


@dataclasses.dataclass(frozen=True)
class Advance:
    """A chunk of training of one agent."""

    num_updates: int

    def __call__(
        self, state: TrainState, agent: Agent, fixed: Config
    ) -> tuple[TrainState, Metrics]:
        return advance(state, eqx.combine(agent.varied, fixed), self.num_updates)


@dataclasses.dataclass(frozen=True)
class Play:
    """Greedy episodes of one agent, and as many with sampled actions, of each kind if asked for.

    The keys are those of the agent and of the updates that it was trained for; those of one kind
    are the same with the other and without.
    """

    num_episodes: int
    max_steps: int
    greedy: bool = True
    sampled: bool = False

    def __call__(
        self, policy: Any, agent: Agent, updates: Int[Array, ""], fixed: Config
    ) -> tuple[Evaluation | None, Evaluation | None]:
        config = eqx.combine(agent.varied, fixed)
        greedy_key, sampled_key = jax.random.split(jax.random.fold_in(agent.key, updates))

        def play(key, greedy):
            how = {"num_episodes": self.num_episodes, "max_steps": self.max_steps}
            return evaluate(key, policy, config, greedy=greedy, **how)

        return (
            play(greedy_key, True) if self.greedy else None,
            play(sampled_key, False) if self.sampled else None,
        )
