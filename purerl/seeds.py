"""Many seeds: their keys, and the fastest way to map a program over them."""

import collections
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key, PyTree

from purerl.checks import one_line
from purerl.config import Config
from purerl.rollout import EnvCarry
from purerl.running import RewardScale
from purerl.sharding import ENVS, SEEDS, over_envs, place, require_mesh, seed_mesh
from purerl.streams import FIRST
from purerl.train import TrainState, train
from purerl.types import Metrics

BLOCK_ENVS = 64  # environments that a CPU's core steps at once, where seeds have fewer
# The compiler's third level takes a quarter longer, and what it makes of a rollout is slower.
CPU_OPTIONS = {"xla_backend_optimization_level": 2, "xla_cpu_prefer_vector_width": 512}


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
    """Refuse what is no batch of typed keys."""
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.ndim != 1:
        raise ValueError(
            f"keys is {keys.dtype}{list(keys.shape)}; give one typed key a seed, such as "
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


def map_seeds(
    function: Callable[..., Any],
    batched: PyTree,
    *broadcast: Any,
    mesh: Mesh | None = None,
    block: int = 1,
) -> Any:
    """Call `function(x, *broadcast)` for each entry x of a batch, compiled, on all local devices.

    **Arguments:** leaves of `batched` have a leading axis `[seeds]`; those of `broadcast` are the
    same for all. A number of seeds that the devices do not divide is padded with repeats of the
    last, which are cut off again; where there are fewer seeds than local devices, some stay idle. A
    CPU computes up to `block` entries side by side, see `block_size`. The devices of a `mesh` may
    be those of several processes.
    """
    num_seeds = jax.tree.leaves(batched)[0].shape[0]
    mesh = seed_mesh(num_seeds=num_seeds) if mesh is None else mesh
    padded = pad_seeds(batched, mesh.shape[SEEDS])
    if mesh.is_multi_process:
        padded = place(padded, NamedSharding(mesh, P(SEEDS)))
    out = seed_program(function, mesh, block=block)(padded, *broadcast)
    return out if num_seeds % mesh.shape[SEEDS] == 0 else _first(out, num_seeds)


@functools.partial(jax.jit, static_argnums=1)
def _first(tree: PyTree, count: int) -> PyTree:
    """The first entries of all leaves, in one program.

    Cut one by one, each sharded leaf would be a program that gathers from all devices; several at
    once, started in no fixed order, wait for each other for ever.
    """
    return jax.tree.map(lambda leaf: leaf[:count], tree)


def block_size(config: Config) -> int:
    """How many seeds a CPU's core should compute side by side: as many as have 64 environments.

    The operations of a few environments cost what it takes to start them, which more seeds share;
    the products of many seeds are slower side by side than one after another.
    """
    return max(1, BLOCK_ENVS // config.num_envs)


def pad_seeds(batched: PyTree, multiple: int) -> PyTree:
    """Repeat the last entry of a batch until its size is a multiple."""
    num_seeds = jax.tree.leaves(batched)[0].shape[0]
    index = np.minimum(np.arange(-(-num_seeds // multiple) * multiple), num_seeds - 1)
    return batched if len(index) == num_seeds else jax.tree.map(lambda x: x[index], batched)


@functools.lru_cache(maxsize=32)
def seed_program(
    function: Callable[..., Any],
    mesh: Mesh,
    *,
    num_batched: int = 1,
    donate: bool = False,
    block: int = 1,
) -> Any:
    """The compiled form of a function of one seed, for batches that the axis `seeds` divides.

    Over `seeds` devices never talk to each other; over `envs` it is the compiler that makes them.
    The first `num_batched` arguments have a leading axis `[seeds]`, the others are common to all;
    `donate` gives away the first. A CPU takes `block` seeds at a time, or as many below that as
    divide its share. Equal functions are one program, and the last few are kept.
    """

    def on_device(*args):
        batched, broadcast = args[:num_batched], args[num_batched:]

        def one(each):
            return function(*each, *broadcast)

        share = jax.tree.leaves(batched)[0].shape[0]
        size = share
        if mesh.devices.flat[0].platform == "cpu":
            size = max(each for each in range(1, min(block, share) + 1) if share % each == 0)
        if size == 1:
            return jax.lax.map(one, batched)
        if size == share:
            return jax.vmap(one)(batched)
        return jax.lax.map(one, batched, batch_size=size)

    def on_mesh(*args):
        specs = tuple(P(SEEDS) if i < num_batched else P() for i in range(len(args)))
        # check_vma is off: an environment's loop may start from constants, which do not vary over
        # the mesh, and go on with values that do.
        out = jax.shard_map(
            on_device,
            mesh=mesh,
            axis_names={SEEDS},
            in_specs=specs,
            out_specs=P(SEEDS),
            check_vma=False,
        )(*args)
        if over_envs(mesh) == 1:
            return out
        return jax.lax.with_sharding_constraint(out, shardings_of(out, mesh))

    is_cpu = mesh.devices.flat[0].platform == "cpu"
    return jax.jit(
        on_mesh,
        out_shardings=NamedSharding(mesh, P(SEEDS)) if over_envs(mesh) == 1 else None,
        donate_argnums=(0,) if donate else (),
        compiler_options=CPU_OPTIONS if is_cpu else None,
    )


def shardings_of(tree: PyTree, mesh: Mesh) -> PyTree:
    """How each leaf of what a `seed_program` returns is laid out over a mesh."""

    def one(node):
        shared = P(SEEDS) if over_envs(mesh) == 1 else P(SEEDS, ENVS)
        is_shared = isinstance(node, EnvCarry)
        specs = jax.tree.map(lambda leaf: shared if is_shared else P(SEEDS), node)
        if isinstance(node, RewardScale):
            specs = eqx.tree_at(lambda scale: scale.discounted_return, specs, shared)
        return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)

    return jax.tree.map(one, tree, is_leaf=lambda node: isinstance(node, EnvCarry | RewardScale))
