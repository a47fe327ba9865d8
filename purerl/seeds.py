"""Many seeds: their keys, and training of as many agents, with one config or with several."""

import collections
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from purerl.checks import one_line
from purerl.compute.mapping import block_size, map_seeds
from purerl.compute.mesh import require_mesh
from purerl.config.config import Config
from purerl.streams import FIRST
from purerl.training import TrainState, train
from purerl.types import Metrics


def seed_keys(root: int | Array, seeds: int | Sequence[int] | np.ndarray) -> Key[Array, " seeds"]:
    """The keys of many seeds: `fold_in(root, id)` for each id.

    What a seed draws depends on the root and its id alone: seed 5 is the same agent among 8 seeds,
    among 64, and by itself.

    **Arguments:** `root` is an int or a typed key; `seeds` a count, for the ids 0 … seeds − 1, or
    the ids themselves.

    **Raises:** `ValueError` where ids repeat, are negative, or there are none.
    """
    ids = seed_ids(seeds)
    root_key = jax.random.key(root) if is_root(root) else root
    is_key = isinstance(root_key, jax.Array)
    if not is_key or not jnp.issubdtype(root_key.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"root = {one_line(root)} must be an int from 0 to 2**32 - 1 or a typed key, "
            f"jax.random.key(0)."
        )
    return jax.vmap(jax.random.fold_in, (None, 0))(root_key, jnp.asarray(ids, jnp.uint32))


def is_root(root: Any) -> bool:
    """Whether a value is a number that makes a root key of its own."""
    return isinstance(root, int | np.integer) and 0 <= int(root) < 2**32


def seed_ids(seeds: int | Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """The ids that `seeds` stands for, checked: a count means 0 … seeds − 1."""
    try:
        counted = range(seeds) if isinstance(seeds, int | np.integer) else seeds
        ids = tuple(operator.index(seed) for seed in counted)
    except TypeError:
        raise ValueError(f"seeds = {seeds!r} must be a count or a sequence of ids.") from None
    if not ids:
        raise ValueError("seeds must name at least one seed; give a count of at least 1, or ids.")
    if min(ids) < 0 or max(ids) >= FIRST:
        raise ValueError(f"seeds must be between 0 and 2**31 - 1, not {min(ids)} to {max(ids)}.")
    repeated = sorted(seed for seed, count in collections.Counter(ids).items() if count > 1)
    if repeated:
        raise ValueError(f"seeds repeat {one_line(repeated)}; give each id once.")
    return ids


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
    return map_seeds(train, keys, config, mesh=mesh, block=block_size(config))


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
    out = map_seeds(train_agent, agents, fixed, mesh=mesh, block=block_size(fixed))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, len(keys), *leaf.shape[1:]), out)
