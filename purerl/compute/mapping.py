"""A function of one seed, mapped over many in the way that suits the platform, and compiled."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from purerl.checks import ceil_div
from purerl.compute.contexts import is_in_shard_map, is_traced, mesh_around, without_mesh
from purerl.compute.mesh import SEEDS, layout_of, place, seed_mesh

Shardings = Callable[[PyTree, Mesh], PyTree]

BLOCK_ENVS = 64  # environments that a CPU's core steps at once, where seeds have fewer
# Level 3 compiles a quarter longer, and the rollouts that it compiles are slower.
CPU_OPTIONS = {"xla_backend_optimization_level": 2, "xla_cpu_prefer_vector_width": 512}


def map_seeds(
    function: Callable[..., Any],
    batched: PyTree,
    *broadcast: Any,
    mesh: Mesh | None = None,
    block: int = 1,
    shardings: Shardings | None = None,
    with_layout: bool = False,
) -> Any:
    """Call `function(x, *broadcast)` for each entry x of a batch, compiled, on all local devices.

    Where the devices do not divide the seeds, the last seed is repeated and the repeats are cut off
    again. With fewer seeds than local devices, some stay idle. A jitted function can call this.

    **Arguments:** leaves of `batched` have a leading axis `[seeds]`; `broadcast` is the same for
    all. A CPU computes up to `block` entries side by side, see `block_size`. The devices of a
    `mesh` may belong to several processes. For its axis `envs` and for `with_layout`, see
    `program_over_seeds`. Where a caller that is traced has a mesh of its own, the entries stay as
    they lie on it.

    **Raises:** `ValueError` for a `mesh` within such a caller.
    """
    traced = is_traced()
    if traced and not mesh_around((batched, broadcast)).empty:
        if mesh is not None:
            raise ValueError(
                "mesh cannot be given within a trace that has one by jax.set_mesh or "
                "jax.shard_map; leave it out, and spread the keys over that one."
            )
        block_or_all = block if _is_share_of_cpu() else None
        return _map_on_device(function, block_or_all, (batched,), broadcast)
    num_seeds = jax.tree.leaves(batched)[0].shape[0]
    mesh = seed_mesh(num_seeds=num_seeds) if mesh is None else mesh
    padded = pad_seeds(batched, mesh.shape[SEEDS])
    if not traced and mesh.is_multi_process:
        padded = place(padded, NamedSharding(mesh, P(SEEDS)))
    elif not traced:
        padded = _brought(padded, NamedSharding(mesh, P(SEEDS)))
        broadcast = _brought(broadcast, NamedSharding(mesh, P()))
    program = program_over_seeds(
        function, mesh, block=block, nested=traced, shardings=shardings, with_layout=with_layout
    )
    with contextlib.nullcontext() if traced else without_mesh():
        out = program(padded, *broadcast)
        return out if num_seeds % mesh.shape[SEEDS] == 0 else _first(out, num_seeds)


def _is_share_of_cpu() -> bool:
    """Whether a caller that has a mesh is one CPU device's share of a `jax.shard_map`."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return is_in_shard_map() and device is not None and device.platform == "cpu"


def _brought(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """The same arrays, with those that were put elsewhere brought to a mesh."""

    def bring(leaf):
        is_elsewhere = isinstance(leaf, jax.Array) and leaf.committed and leaf.sharding != sharding
        return jax.device_put(leaf, sharding) if is_elsewhere else leaf

    return jax.tree.map(bring, tree)


@functools.partial(jax.jit, static_argnums=1)
def _first(tree: PyTree, count: int) -> PyTree:
    """The first entries of all leaves, in one program.

    With one program for each sharded leaf, several would gather from all devices at once. Started
    in no fixed order, they wait for each other for ever.
    """
    return jax.tree.map(lambda leaf: leaf[:count], tree)


def block_size(num_envs: int) -> int:
    """How many seeds a CPU's core should compute side by side: as many as have 64 environments.

    For few environments, most of an operation's cost is its start, which seeds side by side share.
    For many, matrix products are faster one seed after another.
    """
    return max(1, BLOCK_ENVS // num_envs)


def pad_seeds(batched: PyTree, multiple: int) -> PyTree:
    """Repeat the last entry of a batch until its size is a multiple."""
    num_seeds = jax.tree.leaves(batched)[0].shape[0]
    index = np.minimum(np.arange(ceil_div(num_seeds, multiple) * multiple), num_seeds - 1)
    return batched if len(index) == num_seeds else jax.tree.map(lambda x: x[index], batched)


@functools.lru_cache(maxsize=32)
def program_over_seeds(
    function: Callable[..., Any],
    mesh: Mesh,
    *,
    num_batched: int = 1,
    donate: bool = False,
    block: int = 1,
    nested: bool = False,
    shardings: Shardings | None = None,
    with_layout: bool = False,
) -> Any:
    """A function of one seed, compiled for batches that the axis `seeds` divides.

    Devices along `seeds` never communicate; along `envs` the compiler makes them. Equal functions
    share a program, and the last few are kept. The first `num_batched` arguments have a leading
    axis `[seeds]`, the others are common to all. `donate` donates the first. A CPU takes up to
    `block` seeds at a time. A `nested` program is part of another. Along `envs`,
    `shardings(out, mesh)` gives where each leaf of the result lies. `with_layout` gives the
    function the mesh's layout, as `layout`.
    """
    if layout_of(mesh).envs > 1 and shardings is None:
        raise ValueError("shardings are needed over an axis envs: say how the results lie on it.")
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    for_one = functools.partial(function, layout=layout_of(mesh)) if with_layout else function

    def on_mesh(*args):
        batched, broadcast = args[:num_batched], args[num_batched:]
        on_device = functools.partial(_map_on_device, for_one, block if is_cpu else None)
        return _map_over_mesh(on_device, mesh, batched, broadcast, shardings)

    return jax.jit(
        on_mesh,
        out_shardings=NamedSharding(mesh, P(SEEDS)) if layout_of(mesh).envs == 1 else None,
        donate_argnums=(0,) if donate else (),
        # A nested program has the options of the outermost: jax refuses others.
        compiler_options=CPU_OPTIONS if is_cpu and not nested else None,
    )


def _map_over_mesh(
    on_device: Callable[..., Any],
    mesh: Mesh,
    batched: PyTree,
    broadcast: PyTree,
    shardings: Shardings | None,
) -> PyTree:
    """Call a function on each device of a mesh with its share of a batch and all of `broadcast`."""
    # jaxlib 0.11.2 crashes on an empty array over several CPU devices: each device makes its own.
    args, empty = eqx.partition((batched, broadcast), lambda leaf: leaf.size > 0)

    def with_empty(*args):
        local = (_share_of_empty(empty[0], mesh.shape[SEEDS]), _share_of_empty(empty[1], 1))
        return on_device(*eqx.combine(args, local))

    # check_vma is off: an environment's loop may start with constants, which do not vary over the
    # mesh, and continue with values that do.
    out = jax.shard_map(
        with_empty,
        mesh=mesh,
        axis_names={SEEDS},
        in_specs=(P(SEEDS), P()),
        out_specs=P(SEEDS),
        check_vma=False,
    )(*args)
    if shardings is None or layout_of(mesh).envs == 1:
        return out
    return jax.lax.with_sharding_constraint(out, shardings(out, mesh))


def _share_of_empty(tree: PyTree, num_devices: int) -> PyTree:
    """Each device's share of arrays without entries."""
    return jax.tree.map(
        lambda leaf: jnp.zeros((leaf.shape[0] // num_devices, *leaf.shape[1:]), leaf.dtype), tree
    )


def _map_on_device(
    function: Callable[..., Any], block: int | None, batched: PyTree, broadcast: PyTree
) -> PyTree:
    """Map a function over the seeds of one device: side by side, or one block after another."""

    def for_one_seed(args):
        return function(*args, *broadcast)

    num_seeds: int = jax.tree.leaves(batched)[0].shape[0]
    block = num_seeds if block is None else min(block, num_seeds)
    if block == 1:
        return jax.lax.map(for_one_seed, batched)
    if block == num_seeds:
        return jax.vmap(for_one_seed)(batched)
    # Blocks of one size, so that there is one program; the padding of the last is cut off.
    num_blocks = ceil_div(num_seeds, block)
    size = ceil_div(num_seeds, num_blocks)
    blocks = jax.tree.map(
        lambda leaf: leaf.reshape(num_blocks, size, *leaf.shape[1:]),
        pad_seeds(batched, num_blocks * size),
    )
    out = jax.lax.map(jax.vmap(for_one_seed), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_seeds], out)
