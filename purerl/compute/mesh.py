"""Meshes of devices: seeds over the axis `seeds`, and the environments of one agent over `envs`.

Code for one agent is given a `Layout`. With `constrain_envs` it says which axis of its arrays has
environments, and the compiler does the rest. What the axes of the mesh around it are called says
nothing: that may be a user's.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from purerl.checks import is_typed_key, short_repr

SEEDS, ENVS = "seeds", "envs"


class Layout(NamedTuple):
    """Over how many devices the seeds lie, and over how many the environments of each agent."""

    seeds: int = 1
    envs: int = 1


ALONE = Layout()


def layout_of(mesh: Mesh) -> Layout:
    """The layout of agents whose seeds and environments are spread over a mesh."""
    return Layout(mesh.shape.get(SEEDS, 1), mesh.shape.get(ENVS, 1))


def seed_mesh(devices: Sequence[Any] | None = None, num_seeds: int | None = None) -> Mesh:
    """A mesh with one axis, `seeds`, over the given or all local devices; at most one for a seed.

    Any further device would only compute a seed again.
    """
    devices = jax.local_devices() if devices is None else devices
    return make_mesh(np.asarray(devices)[:num_seeds])


def make_mesh(devices: Sequence[Any] | np.ndarray, envs: int = 1) -> Mesh:
    """A mesh of the given devices: `envs` neighbours share the environments of the same seeds."""
    grid = np.asarray(devices)
    # Auto axes: environments are not written for Explicit ones.
    if envs == 1:
        return Mesh(grid, (SEEDS,), axis_types=(AxisType.Auto,))
    return Mesh(grid.reshape(-1, envs), (SEEDS, ENVS), axis_types=(AxisType.Auto,) * 2)


def require_mesh(mesh: Mesh, num_envs: int) -> Mesh:
    """Refuse anything but a mesh of known axes whose `envs` divides the environments.

    **Returns:** the mesh with Auto axes.
    """
    if not isinstance(mesh, Mesh):
        raise ValueError(
            f"mesh = {short_repr(mesh)} must be a jax.sharding.Mesh, such as "
            f"jax.make_mesh((8,), ('seeds',))."
        )
    if SEEDS not in mesh.shape or not set(mesh.shape) <= {SEEDS, ENVS}:
        raise ValueError(
            f"mesh has the axes {short_repr(tuple(mesh.shape))}; it takes {SEEDS!r}, and {ENVS!r} "
            f"to spread the environments of an agent too."
        )
    if not mesh.local_devices:
        raise ValueError("mesh has no device of this process; take some of each process.")
    devices = layout_of(mesh).envs
    if num_envs % devices:
        nearest = max(1, num_envs // devices) * devices
        raise ValueError(
            f"num_envs = {num_envs} is not divisible by the {devices} devices of the mesh's axis "
            f"{ENVS!r}; use {nearest} or {nearest + devices}."
        )
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.shape))


def constrain_envs(tree: PyTree, axis: int, layout: Layout) -> PyTree:
    """Spread all leaves along an axis, of environments or rows, over the devices of `envs`.

    Leaves that the devices do not divide stay as they are.
    """
    spec = P(*[None] * axis, ENVS)

    def constrain(leaf: Array) -> Array:
        if leaf.shape[axis] % layout.envs:
            return leaf
        return jax.lax.with_sharding_constraint(leaf, spec)

    return tree if layout.envs == 1 else jax.tree.map(constrain, tree)


def place(tree: PyTree, shardings: Any) -> PyTree:
    """Lay out arrays that every process has over devices, which may belong to several processes.

    **Arguments:** `shardings` is one sharding, or one for each leaf.
    """
    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda leaf: _place(leaf, shardings), tree)
    return jax.tree.map(_place, tree, shardings)


def _place(leaf: Any, sharding: Any) -> Any:
    is_spread = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    if sharding.is_fully_addressable or is_spread:
        return jax.device_put(leaf, sharding)
    if is_typed_key(leaf):
        data = _place(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
