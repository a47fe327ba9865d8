"""Many seeds: their keys, and the fastest way to map a program over them."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key, PyTree

from purerl.config import Config
from purerl.train import TrainState, train
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
    root_key = jax.random.key(root) if isinstance(root, int | np.integer) else root
    if not jnp.issubdtype(root_key.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"root is a raw {root_key.dtype} array; use an int or a typed key, jax.random.key(0)."
        )
    return jax.vmap(jax.random.fold_in, (None, 0))(root_key, jnp.asarray(ids, jnp.uint32))


def seed_ids(seeds: int | Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """The ids that `seeds` stands for, checked: a count means 0 … seeds − 1."""
    try:
        counted = range(seeds) if isinstance(seeds, int | np.integer) else seeds
        ids = tuple(operator.index(seed) for seed in counted)
    except TypeError:
        raise ValueError(f"seeds = {seeds!r} must be a count or a sequence of ids.") from None
    if not ids:
        raise ValueError("seeds must name at least one seed; give a count of at least 1, or ids.")
    if min(ids) < 0 or max(ids) >= 2**32:
        raise ValueError(f"seeds must be between 0 and 2**32 - 1, not {min(ids)} to {max(ids)}.")
    if len(set(ids)) != len(ids):
        repeated = sorted({seed for seed in ids if ids.count(seed) > 1})
        raise ValueError(f"seeds repeat {repeated}; give each id once.")
    return ids


def train_seeds(keys: Key[Array, " seeds"], config: Config) -> tuple[TrainState, Metrics]:
    """Train one agent for each key, compiled, on all local devices.

    The same agents as `jax.vmap(train, (0, None))(keys, config)`, mapped as the platform likes
    best: seeds are spread over the devices; on each, an accelerator maps them with `vmap`, a CPU
    one after another, where their arrays stay in the cache.

    **Returns:** states and metrics with a leading axis `[seeds]`.
    """
    return map_seeds(train, keys, config)


def map_seeds(
    function: Callable[..., Any], batched: PyTree, *broadcast: Any, devices: Any = None
) -> Any:
    """Call `function(x, *broadcast)` for each entry x of a batch, compiled, on all local devices.

    **Arguments:** leaves of `batched` have a leading axis `[seeds]`; those of `broadcast` are the
    same for all. A number of seeds that the devices do not divide is padded with repeats of the
    last, which are cut off again.
    """
    mesh = seed_mesh(devices)
    num_seeds = jax.tree.leaves(batched)[0].shape[0]
    out = seed_program(function, mesh)(pad_seeds(batched, mesh.size), *broadcast)
    return jax.tree.map(lambda leaf: leaf[:num_seeds], out)


def seed_mesh(devices: Any = None) -> Mesh:
    """A mesh with one axis, `seeds`, over the given devices or all local ones."""
    devices = jax.local_devices() if devices is None else devices
    # Auto axes: environments are not written for explicit ones.
    return Mesh(np.asarray(devices), ("seeds",), axis_types=(AxisType.Auto,))


def pad_seeds(batched: PyTree, multiple: int) -> PyTree:
    """Repeat the last entry of a batch until its size is a multiple."""
    num_seeds = jax.tree.leaves(batched)[0].shape[0]
    index = np.minimum(np.arange(-(-num_seeds // multiple) * multiple), num_seeds - 1)
    return batched if len(index) == num_seeds else jax.tree.map(lambda x: x[index], batched)


@functools.cache
def seed_program(function: Callable[..., Any], mesh: Mesh, *, donate: bool = False) -> Any:
    """The compiled form of a function of one seed, for batches that divide the mesh."""

    def on_device(batched, *broadcast):
        def one(x):
            return function(x, *broadcast)

        if mesh.devices.flat[0].platform == "cpu":
            return jax.lax.map(one, batched)
        return jax.vmap(one)(batched)

    def on_mesh(batched, *broadcast):
        specs = (P("seeds"), *(P() for _ in broadcast))
        # check_vma is off: an environment's loop may start from constants, which do not vary over
        # the mesh, and go on with values that do.
        return jax.shard_map(
            on_device, mesh=mesh, in_specs=specs, out_specs=P("seeds"), check_vma=False
        )(batched, *broadcast)

    sharding = NamedSharding(mesh, P("seeds"))
    return jax.jit(on_mesh, out_shardings=sharding, donate_argnums=(0,) if donate else ())
