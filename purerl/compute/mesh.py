"""Meshes of devices: seeds over the axis `seeds`, and the environments of one agent over `envs`.

Code that is written for one agent is traced with the mesh around it, and says here along which axis
its arrays have environments; the compiler does the rest. Without an axis `envs` nothing is said.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from purerl.checks import one_line

SEEDS, ENVS = "seeds", "envs"


def seed_mesh(devices: Sequence[Any] | None = None, num_seeds: int | None = None) -> Mesh:
    """A mesh with one axis, `seeds`, over the given devices or all local ones; no more than seeds.

    A device without a seed of its own would compute another's once more.
    """
    devices = jax.local_devices() if devices is None else devices
    return make_mesh(np.asarray(devices)[:num_seeds])


def make_mesh(devices: Sequence[Any] | np.ndarray, envs: int = 1) -> Mesh:
    """A mesh of the given devices: `envs` neighbours share the environments of the same seeds."""
    grid = np.asarray(devices)
    # Auto axes: environments are not written for explicit ones.
    if envs == 1:
        return Mesh(grid, (SEEDS,), axis_types=(AxisType.Auto,))
    return Mesh(grid.reshape(-1, envs), (SEEDS, ENVS), axis_types=(AxisType.Auto,) * 2)


def require_mesh(mesh: Mesh, num_envs: int) -> Mesh:
    """Refuse what is no mesh, or has other axes, or where `envs` does not divide the environments.

    **Returns:** the mesh with Auto axes.
    """
    if not isinstance(mesh, Mesh):
        raise ValueError(
            f"mesh = {one_line(mesh)} must be a jax.sharding.Mesh, such as "
            f"jax.make_mesh((8,), ('seeds',))."
        )
    if SEEDS not in mesh.shape or not set(mesh.shape) <= {SEEDS, ENVS}:
        raise ValueError(
            f"mesh has the axes {one_line(tuple(mesh.shape))}; it takes {SEEDS!r}, and {ENVS!r} to "
            f"spread the environments of an agent too."
        )
    if not mesh.local_devices:
        raise ValueError("mesh has no device of this process; take some of each process.")
    over = over_envs(mesh)
    if num_envs % over:
        near = max(1, num_envs // over) * over
        raise ValueError(
            f"num_envs = {num_envs} is not divisible by the {over} devices of the mesh's axis "
            f"{ENVS!r}; use {near} or {near + over}."
        )
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.shape))


def over_envs(mesh: Any = None) -> int:
    """The devices that share the environments of an agent, in a mesh or in the one around a trace.

    1 where there is no such axis.
    """
    return (jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape.get(ENVS, 1)


def num_seed_devices() -> int:
    """The devices that share the seeds, in the mesh around a trace; 1 where there is none."""
    return jax.sharding.get_abstract_mesh().shape.get(SEEDS, 1)


def spread_envs(tree: PyTree, axis: int) -> PyTree:
    """Spread all leaves along an axis over the devices of `envs`, where these divide it.

    Along it are environments, or rows of a batch.
    """
    devices, spec = over_envs(), P(*[None] * axis, ENVS)

    def one(leaf: Array) -> Array:
        if leaf.shape[axis] % devices:
            return leaf
        return jax.lax.with_sharding_constraint(leaf, spec)

    return tree if devices == 1 else jax.tree.map(one, tree)


def place(tree: PyTree, shardings: Any) -> PyTree:
    """Arrays that every process has, laid out over devices that may be those of several.

    **Arguments:** `shardings` is one sharding, or one for each leaf.
    """
    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda leaf: _place(leaf, shardings), tree)
    return jax.tree.map(_place, tree, shardings)


def _place(leaf: Any, sharding: Any) -> Any:
    is_spread = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    if sharding.is_fully_addressable or is_spread:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _place(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def parse_devices(text: str, devices: Sequence[Any] | None = None) -> Mesh:
    """`8`, or `4x2` for seeds times environments, as a mesh of so many of the devices.

    **Arguments:** `devices` are those of a machine that is not here; by default all of this run.

    **Raises:** `ValueError` for anything else, where there are not as many, and where a process
    would have none.
    """
    match = re.fullmatch(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?", text)
    if match is None:
        raise ValueError(
            f"devices = {text!r} cannot be read; write 8, or 4x2 for 4 groups of seeds with 2 "
            f"devices each that share their environments."
        )
    seeds, envs, named = int(match[1]), int(match[2] or 1), f"devices = {text!r}"
    if devices is None:
        return mesh_of(seeds, envs, named)
    if seeds * envs > len(devices):
        raise ValueError(
            f"{named} needs {seeds * envs} devices, and the target has {len(devices)}; use fewer."
        )
    return make_mesh(devices[: seeds * envs], envs)


def mesh_of(seeds: int, envs: int, named: str) -> Mesh:
    """The first devices as a mesh of this shape; `named` is what asked for it."""
    needed, there = seeds * envs, jax.device_count()
    if needed > there:
        more = ""
        if jax.devices()[0].platform == "cpu" and jax.process_count() == 1:
            more = f", or set JAX_NUM_CPU_DEVICES={needed}"
        raise ValueError(f"{named} needs {needed} devices, and there are {there}; use fewer{more}.")
    if needed < there and jax.process_count() > 1:
        raise ValueError(
            f"{named} needs {needed} of the {there} devices that {jax.process_count()} processes "
            f"have; with several processes use all."
        )
    return make_mesh(jax.devices()[:needed], envs)


def shape_of(mesh: Mesh | None) -> dict[str, int] | None:
    """A mesh as a header says it; None where it was not asked for."""
    if mesh is None:
        return None
    return {SEEDS: mesh.shape[SEEDS]} | ({ENVS: over_envs(mesh)} if over_envs(mesh) > 1 else {})


def mesh_from(shape: dict[str, int] | None) -> Mesh | None:
    """The mesh that a header says.

    **Raises:** `ValueError` where there are not as many devices.
    """
    if shape is None:
        return None
    seeds, envs = shape[SEEDS], shape.get(ENVS, 1)
    size = f"{seeds}x{envs}" if envs > 1 else str(seeds)
    return mesh_of(seeds, envs, f"the run's mesh, --devices {size},")
