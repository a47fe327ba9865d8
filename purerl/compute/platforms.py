"""What is computed in one way on a CPU, and in another on an accelerator."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def by_platform(*args: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """`cpu(*args)` for a CPU, `default(*args)` for all else; both return the same shapes.

    The mesh around the trace says which it is, and the program is for its platform alone: the other
    way is not traced. Without a mesh both are, and the one is taken for which the program is
    lowered, as by `jax.lax.platform_dependent`.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.lax.platform_dependent(*args, cpu=cpu, default=default)
    return (cpu if device.platform == "cpu" else default)(*args)


def recurrence(
    term: Float[Array, "T *batch"], decay: Float[Array, "T *batch"], *, reverse: bool
) -> Float[Array, "T *batch"]:
    """Solve `x_t = term_t + decay_t · x_{t−1}` from x = 0 on; with `reverse`, of `x_{t+1}`.

    On a CPU step by step, elsewhere in log₂ T rounds: there each step would be kernels of its own.
    What lies behind a decay of 0 does not leak, NaN included.
    """
    return by_platform(
        term,
        decay,
        cpu=functools.partial(_step_by_step, reverse=reverse),
        default=functools.partial(_in_rounds, reverse=reverse),
    )


def _step_by_step(term: Array, decay: Array, *, reverse: bool) -> Array:
    def step(x, now):
        term, decay = now
        x = term + _behind(decay, x)
        return x, x

    _, x = jax.lax.scan(step, jnp.zeros_like(term[0]), (term, decay), reverse=reverse, unroll=8)
    return x


def _in_rounds(term: Array, decay: Array, *, reverse: bool) -> Array:
    def join(before, after):
        term, decay = before
        more, further = after
        return more + _behind(further, term), _behind(further, decay)

    return jax.lax.associative_scan(join, (term, decay), reverse=reverse)[0]


def _behind(decay: Array, x: Array) -> Array:
    # Not a product alone: 0 · NaN is NaN, and what lies behind a cut must not leak.
    return jnp.where(decay == 0, 0, decay * x)
