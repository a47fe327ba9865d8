"""Computations that have one form for a CPU and another for an accelerator."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def by_platform(*args: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """`cpu(*args)` on a CPU, `default(*args)` elsewhere; both return the same shapes.

    Inside a mesh, only the function for its platform is traced. Without one both are, and lowering
    takes one of them, as `jax.lax.platform_dependent` does.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.lax.platform_dependent(*args, cpu=cpu, default=default)
    return (cpu if device.platform == "cpu" else default)(*args)


def linear_recurrence(
    term: Float[Array, "T *batch"], decay: Float[Array, "T *batch"], *, reverse: bool
) -> Float[Array, "T *batch"]:
    """Solve `x_t = term_t + decay_t · x_{t−1}` from x = 0; with `reverse`, of `x_{t+1}`.

    A CPU goes step by step. An accelerator, where each step would be kernels, takes log₂ T rounds.
    Nothing passes through a decay of 0, not even NaN.
    """
    return by_platform(
        term,
        decay,
        cpu=functools.partial(_sequential, reverse=reverse),
        default=functools.partial(_parallel, reverse=reverse),
    )


def _sequential(term: Array, decay: Array, *, reverse: bool) -> Array:
    def step(x, inputs):
        term, decay = inputs
        x = term + _discounted(decay, x)
        return x, x

    _, x = jax.lax.scan(step, jnp.zeros_like(term[0]), (term, decay), reverse=reverse)
    return x


def _parallel(term: Array, decay: Array, *, reverse: bool) -> Array:
    def compose(first, second):
        term, decay = first
        next_term, next_decay = second
        return next_term + _discounted(next_decay, term), _discounted(next_decay, decay)

    return jax.lax.associative_scan(compose, (term, decay), reverse=reverse)[0]


def _discounted(decay: Array, x: Array) -> Array:
    # Not the product alone: 0 · NaN is NaN, and nothing may pass through a decay of 0.
    # In `lax`, as many of these are traced: a call of `jnp` costs several times as much.
    is_cut = jax.lax.eq(decay, jax.lax.full_like(decay, 0))
    return jax.lax.select(is_cut, jax.lax.full_like(x, 0), jax.lax.mul(decay, x))
