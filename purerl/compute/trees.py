"""Whole pytrees: a choice between two, a check that all is finite, and packing into few arrays."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from purerl.compute.mesh import num_env_devices


def tree_where(condition: Bool[Array, ""], chosen: Any, other: Any) -> Any:
    """One of two pytrees of the same structure, leaf by leaf."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), chosen, other)


def all_finite(tree: PyTree, is_finite: Callable[[Array], Array] = jnp.isfinite) -> Bool[Array, ""]:
    """Whether every floating-point number in a pytree is finite."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    if num_env_devices() > 1:  # one array would gather the environments from all devices
        return jnp.all(jnp.array([jnp.all(is_finite(leaf)) for leaf in leaves]))
    # In one array: a reduction for each leaf would be as many kernels, and loops to compile.
    numbers, _ = ravel_pytree(leaves)
    if not numbers.size:  # jaxlib 0.11.2 crashes on an empty reduction on several CPU devices
        return jnp.array(True)
    return jnp.all(is_finite(numbers))


class Packed(eqx.Module):
    """Scalars on their way out of a loop: the floats in one array, which is stored at once."""

    floats: Float[Array, "*records floats"]
    others: list[Shaped[Array, "*records"]]
    treedef: Any = eqx.field(static=True)
    is_float: tuple[bool, ...] = eqx.field(static=True)


def pack(tree: PyTree) -> Packed:
    """A pytree of scalars, some of them floats, in few arrays."""
    leaves, treedef = jax.tree.flatten(tree)
    is_float = tuple(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)
    floats = [leaf for leaf, floating in zip(leaves, is_float, strict=True) if floating]
    others = [leaf for leaf, floating in zip(leaves, is_float, strict=True) if not floating]
    return Packed(jnp.stack(floats, axis=-1), others, treedef, is_float)


def unpack(packed: Packed) -> PyTree:
    """The pytree that `pack` was given. Where records were stacked, each leaf has their axes."""
    columns, others = iter(range(packed.floats.shape[-1])), iter(packed.others)
    leaves = [
        packed.floats[..., next(columns)] if floating else next(others)
        for floating in packed.is_float
    ]
    return jax.tree.unflatten(packed.treedef, leaves)
