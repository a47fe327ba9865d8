"""Pytrees as one thing: chosen between, checked, and packed into few arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from purerl.compute.mesh import over_envs
from purerl.types import Metrics


class Packed(NamedTuple):
    """Metrics as they leave a loop: in two arrays, where each scalar would be stored by itself."""

    means: Float[Array, "*records metrics"]
    num_episodes: Int[Array, "*records"]


def pack(metrics: Metrics) -> Packed:
    """Metrics in two arrays."""
    means = eqx.tree_at(lambda m: m.num_episodes, metrics, None)
    return Packed(jnp.stack(jax.tree.leaves(means), axis=-1), metrics.num_episodes)


def unpack(packed: Packed) -> Metrics:
    """The metrics that `pack` was given."""
    names = [field.name for field in dataclasses.fields(Metrics) if field.name != "num_episodes"]
    means = {name: packed.means[..., i] for i, name in enumerate(names)}
    return Metrics(num_episodes=packed.num_episodes, **means)


def all_finite(tree: PyTree, is_finite: Callable[[Array], Array] = jnp.isfinite) -> Bool[Array, ""]:
    """Whether every floating-point number in a pytree is finite."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    if over_envs() > 1:  # in one array, environments would be gathered from all devices
        return jnp.all(jnp.array([jnp.all(is_finite(leaf)) for leaf in leaves]))
    # In one array: a reduction of each leaf would be a kernel, and a loop to compile, of its own.
    numbers, _ = ravel_pytree(leaves)
    if not numbers.size:  # jaxlib 0.11.2 crashes on nothing to reduce, on several CPU devices
        return jnp.array(True)
    return jnp.all(is_finite(numbers))


def select(condition: Bool[Array, ""], chosen: Any, other: Any) -> Any:
    """One of two pytrees of the same structure, leaf by leaf."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), chosen, other)
