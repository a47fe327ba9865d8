"""Counts the floating-point operations of a function in what jax traces of it."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

# Operations that move numbers and compute none.
MOVES = (
    *("broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice"),
    *("dynamic_update_slice", "expand_dims", "gather", "iota", "pad", "random_bits"),
    *("random_unwrap", "random_wrap", "reshape", "rev", "scatter", "select_n", "slice"),
    *("split", "squeeze", "stop_gradient", "transpose", "unstack"),
)


PRODUCTS = ("dot_general", "conv_general_dilated")


def count_flops(function: Any, *args: Any, products_only: bool = False) -> float:
    """Floating-point operations of one call: a multiply-add is two, all else one an element.

    A loop of unknown length counts once. Of several branches the longest counts.

    **Arguments:** `products_only` counts matrix products and convolutions alone.
    """
    return _jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr, products_only)


def _jaxpr_flops(jaxpr: Any, products_only: bool) -> float:
    return sum((_equation_flops(equation, products_only) for equation in jaxpr.eqns), 0.0)


def _equation_flops(equation: Any, products_only: bool) -> float:
    name, params = equation.primitive.name, equation.params
    result = equation.outvars[0].aval if equation.outvars else None
    if name == "scan":
        return params["length"] * _jaxpr_flops(params["jaxpr"].jaxpr, products_only)
    if name == "cond":
        return max(_jaxpr_flops(branch.jaxpr, products_only) for branch in params["branches"])
    inner = list(_inner_jaxprs(params))
    if inner:
        return sum((_jaxpr_flops(jaxpr, products_only) for jaxpr in inner), 0.0)
    if name in MOVES or result is None or (products_only and name not in PRODUCTS):
        return 0.0
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval
        return 2.0 * result.size * math.prod(left.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, layout = equation.invars[1].aval, params["dimension_numbers"].rhs_spec
        return 2.0 * result.size * kernel.size / kernel.shape[layout[0]]
    array = equation.invars[0].aval if name.startswith(("reduce_", "cum", "arg")) else result
    is_float = hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jnp.floating)
    return float(array.size) if is_float else 0.0


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The functions that an operation calls."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item
