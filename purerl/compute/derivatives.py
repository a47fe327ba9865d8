"""Operations with a derivative where the plain ones have none or NaN; their values are the same.

A result that a `where` leaves aside still takes part in a derivative: its share is 0 times its own
derivative, and 0 · NaN is NaN.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def mean(total: Float[Array, "*batch"], count: Num[Array, "*#batch"]) -> Float[Array, "*batch"]:
    """`total / count`, and NaN with the derivative 0 where nothing was counted."""
    is_empty = count == 0
    return jnp.where(is_empty, jnp.nan, total / jnp.where(is_empty, 1, count))


def with_derivative_of(other: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function the derivative of another that has the same values."""

    def decorate(function):
        call = eqx.filter_custom_jvp(function)

        @call.def_jvp
        def call_jvp(primals, tangents):
            return call(*primals), eqx.filter_jvp(other, primals, tangents)[1]

        return call

    return decorate


def _sqrt_apart(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    is_zero = x == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, x)))


@with_derivative_of(_sqrt_apart)
def sqrt(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """`√x`, with the derivative 0 at 0."""
    return jnp.sqrt(x)


def norm(x: Float[Array, " n"]) -> Float[Array, ""]:
    """The Euclidean norm, with the derivative 0 at 0."""
    return sqrt(jnp.sum(x * x))


def flat_where_unsound(function: Callable[..., tuple[Any, Array]]) -> Callable[..., Any]:
    """A function whose derivatives are 0 where it says that its result is not sound.

    It returns `(result, is_sound)`. What is not sound may have derivatives that are not finite.
    """

    @eqx.filter_custom_jvp
    def call(*args):
        return function(*args)

    @call.def_jvp
    def call_jvp(primals, tangents):
        def of_moved(moved):
            out = function(*eqx.combine(moved, primals))
            return eqx.partition(out, eqx.is_inexact_array)

        # Only what has a tangent: None stands for the rest.
        moved = jax.tree.map(
            lambda t, x: None if t is None else x, tangents, primals, is_leaf=_is_none
        )
        floats, move, others = jax.linearize(of_moved, moved, has_aux=True)
        out = eqx.combine(floats, others)
        moves = jax.tree.map(lambda t: jnp.where(out[1], t, 0), tangents)
        return out, move(moves)

    return call


def _is_none(x: Any) -> bool:
    return x is None
