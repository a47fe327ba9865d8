"""Whole pytrees: a choice between two, a check that all is finite, packing, and means."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, Num, PyTree

from purerl.compute.derivatives import mean
from purerl.compute.mesh import ALONE, Layout


def tree_where(condition: Bool[Array, ""], x: Any, y: Any) -> Any:
    """One of two pytrees of the same structure, leaf by leaf."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), x, y)


def depend_on(key: Key[Array, ""], tree: Any) -> Any:
    """The same pytree, of which every leaf depends on a key as far as tracing can see.

    Under `vmap` over keys, nothing in it is then common to all: a loop that carries it is mapped in
    one pass, instead of one more for each leaf that its body makes depend on the key. The compiler
    drops it.
    """
    always = jnp.all(jax.random.key_data(key) >= 0)
    return tree_where(always, tree, tree)


def stays_finite(tree: PyTree, before: PyTree, layout: Layout = ALONE) -> Bool[Array, ""]:
    """Whether no floating-point number in a pytree is NaN, or infinite where it was not before."""

    def is_sound(x: Array, old: Array) -> Array:
        return jnp.isfinite(x) | (jnp.isinf(x) & jnp.isinf(old))

    return _all(is_sound, layout, tree, before)


def has_no_nan(tree: PyTree, layout: Layout = ALONE) -> Bool[Array, ""]:
    """Whether no floating-point number in a pytree is NaN."""
    return _all(lambda x: ~jnp.isnan(x), layout, tree)


def _all(is_sound: Callable[..., Array], layout: Layout, *trees: PyTree) -> Bool[Array, ""]:
    """Whether all floating-point numbers of pytrees of one structure are sound together."""
    leaves = [jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in trees]
    if layout.envs > 1:  # one array would gather the environments from all devices
        sound = [jnp.all(is_sound(*each)) for each in zip(*leaves, strict=True)]
        return jnp.all(jnp.array(sound, bool))
    # In one array: a reduction for each leaf would be as many kernels, and loops to compile.
    numbers = [ravel_pytree(list(map(_promotable, each)))[0] for each in leaves]
    if not numbers[0].size:  # jaxlib 0.11.2 crashes on an empty reduction on several CPU devices
        return jnp.array(True)
    return jnp.all(is_sound(*numbers))


def _promotable(x: Array) -> Array:
    """An array of floats that jax promotes: those of 8 bits and fewer it does not."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 16 else x


class Packed(eqx.Module):
    """Scalars as they leave a loop: floats in one array, where each would be stored by itself."""

    floats: Float[Any, "*records floats"]
    others: PyTree
    treedef: Any = eqx.field(static=True)


def pack(tree: PyTree) -> Packed:
    """Pack a pytree of scalars, of which some are floats, all of one dtype."""
    floats, others = eqx.partition(tree, eqx.is_inexact_array)
    leaves, treedef = jax.tree.flatten(floats)
    return Packed(jnp.stack(leaves, axis=-1), others, treedef)


def unpack(packed: Packed) -> PyTree:
    """The pytree that `pack` was given; of several, each leaf has their axes."""
    floats = [packed.floats[..., i] for i in range(packed.floats.shape[-1])]
    return eqx.combine(jax.tree.unflatten(packed.treedef, floats), packed.others)


def undefined(packed: Packed) -> Packed:
    """The same of nothing: NaN for each float, and 0."""
    return jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 0), packed
    )


class Sums(eqx.Module):
    """Packed sums, and how many numbers each of their floats adds up; their quotients are means.

    A compiled program that returns sums returns no NaN for what is not defined, which
    `JAX_DEBUG_NANS` would take for a mistake.
    """

    packed: Packed
    counts: Num[Any, "*records floats"]


def divide(sums: Sums) -> PyTree:
    """The means, unpacked: NaN where nothing was added."""
    return _with_floats(sums, mean(sums.packed.floats, sums.counts))


def divide_on_host(sums: Sums) -> PyTree:
    """`divide`, of NumPy arrays and by NumPy."""
    floats = sums.packed.floats
    undefined = np.full(floats.shape, np.nan, floats.dtype)
    counts = sums.counts.astype(floats.dtype)
    return _with_floats(sums, np.divide(floats, counts, out=undefined, where=counts > 0))


def _with_floats(sums: Sums, floats: Any) -> PyTree:
    return unpack(dataclasses.replace(sums.packed, floats=floats))
