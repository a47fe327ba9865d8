"""A function of one seed, mapped over many as the platform likes best, and compiled."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from purerl.compute.mesh import SEEDS, over_envs, place, seed_mesh

Shardings = Callable[[PyTree, Mesh], PyTree]

BLOCK_ENVS = 64  # environments that a CPU's core steps at once, where seeds have fewer
# The compiler's third level takes a quarter longer, and what it makes of a rollout is slower.
CPU_OPTIONS = {"xla_backend_optimization_level": 2, "xla_cpu_prefer_vector_width": 512}


def map_seeds(
    function: Callable[..., Any],
    batched: PyTree,
    *broadcast: Any,
    mesh: Mesh | None = None,
    block: int = 1,
    shardings: Shardings | None = None,
) -> Any:
    """Call `function(x, *broadcast)` for each entry x of a batch, compiled, on all local devices.

    **Arguments:** leaves of `batched` have a leading axis `[seeds]`; those of `broadcast` are the
    same for all. A number of seeds that the devices do not divide is padded with repeats of the
    last, which are cut off again; where there are fewer seeds than local devices, some stay idle. A
    CPU computes up to `block` entries side by side, see `block_size`. The devices of a `mesh` may
    be those of several processes, and have an axis `envs`: `shardings` then says how the results
    lie over it, see `seed_program`. It can be part of a compiled function.
    """
    num_seeds = jax.tree.leaves(batched)[0].shape[0]
    mesh = seed_mesh(num_seeds=num_seeds) if mesh is None else mesh
    padded = pad_seeds(batched, mesh.shape[SEEDS])
    traced = _is_traced()
    if mesh.is_multi_process and not traced:
        padded = place(padded, NamedSharding(mesh, P(SEEDS)))
    program = seed_program(function, mesh, block=block, nested=traced, shardings=shardings)
    out = program(padded, *broadcast)
    return out if num_seeds % mesh.shape[SEEDS] == 0 else _first(out, num_seeds)


def _is_traced() -> bool:
    """Whether this is part of a function that is being traced, maybe with none of its arguments."""
    return isinstance(jnp.zeros(()), Tracer)


@functools.partial(jax.jit, static_argnums=1)
def _first(tree: PyTree, count: int) -> PyTree:
    """The first entries of all leaves, in one program.

    Cut one by one, each sharded leaf would be a program that gathers from all devices; several at
    once, started in no fixed order, wait for each other for ever.
    """
    return jax.tree.map(lambda leaf: leaf[:count], tree)


def block_size(num_envs: int) -> int:
    """How many seeds a CPU's core should compute side by side: as many as have 64 environments.

    The operations of a few environments cost what it takes to start them, which more seeds share;
    the products of many seeds are slower side by side than one after another.
    """
    return max(1, BLOCK_ENVS // num_envs)


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
    nested: bool = False,
    shardings: Shardings | None = None,
) -> Any:
    """The compiled form of a function of one seed, for batches that the axis `seeds` divides.

    Over `seeds` devices never talk to each other; over `envs` it is the compiler that makes them.
    The first `num_batched` arguments have a leading axis `[seeds]`, the others are common to all;
    `donate` gives away the first. A CPU takes up to `block` seeds at a time. Equal functions are
    one program, and the last few are kept. `nested` is one that another program contains. Over
    `envs`, `shardings(out, mesh)` says how each leaf of the result is laid out.
    """
    is_cpu = mesh.devices.flat[0].platform == "cpu"

    def on_mesh(*args):
        batched, broadcast = args[:num_batched], args[num_batched:]
        on_device = functools.partial(_on_device, function, block if is_cpu else None)
        return _on_mesh(on_device, mesh, batched, broadcast, shardings)

    return jax.jit(
        on_mesh,
        out_shardings=NamedSharding(mesh, P(SEEDS)) if over_envs(mesh) == 1 else None,
        donate_argnums=(0,) if donate else (),
        # A nested program has those of the outermost: jax refuses others.
        compiler_options=CPU_OPTIONS if is_cpu and not nested else None,
    )


def _on_mesh(
    on_device: Callable[..., Any],
    mesh: Mesh,
    batched: PyTree,
    broadcast: PyTree,
    shardings: Shardings | None,
) -> PyTree:
    """Give each device of a mesh its share of a batch, and all of what is broadcast."""
    # jaxlib 0.11.2 crashes where an array without entries is laid over several CPU devices: each
    # device makes its own.
    args, empty = eqx.partition((batched, broadcast), lambda leaf: leaf.size > 0)

    def with_empty(*args):
        own = (_share_of_empty(empty[0], mesh.shape[SEEDS]), _share_of_empty(empty[1], 1))
        return on_device(*eqx.combine(args, own))

    # check_vma is off: an environment's loop may start from constants, which do not vary over the
    # mesh, and go on with values that do.
    out = jax.shard_map(
        with_empty,
        mesh=mesh,
        axis_names={SEEDS},
        in_specs=(P(SEEDS), P()),
        out_specs=P(SEEDS),
        check_vma=False,
    )(*args)
    if shardings is None or over_envs(mesh) == 1:
        return out
    return jax.lax.with_sharding_constraint(out, shardings(out, mesh))


def _share_of_empty(tree: PyTree, num_devices: int) -> PyTree:
    """What each device holds of arrays that have no entries."""
    return jax.tree.map(
        lambda leaf: jnp.zeros((leaf.shape[0] // num_devices, *leaf.shape[1:]), leaf.dtype), tree
    )


def _on_device(
    function: Callable[..., Any], block: int | None, batched: PyTree, broadcast: PyTree
) -> PyTree:
    """Map a function over the share of one device: side by side, or in blocks one after another."""

    def one(each):
        return function(*each, *broadcast)

    share = jax.tree.leaves(batched)[0].shape[0]
    block = share if block is None else min(block, share)
    if block == 1:
        return jax.lax.map(one, batched)
    if block == share:
        return jax.vmap(one)(batched)
    # Blocks of one size, so that there is one program; what fills up the last is thrown away.
    num_blocks = -(-share // block)
    size = -(-share // num_blocks)
    blocks = jax.tree.map(
        lambda leaf: leaf.reshape(num_blocks, size, *leaf.shape[1:]),
        pad_seeds(batched, num_blocks * size),
    )
    out = jax.lax.map(jax.vmap(one), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:share], out)
