"""The gradient of a layer's weights, as a CPU computes it best.

It is a product over the rows of a batch, `a.T @ b`. XLA's CPU backend has a fast library for
products, but not for this form. With the smaller operand turned over in memory, it is a product
like others. This is done to the operations of a gradient, of any network whose weights are stored
`[in, out]`: a rule of the layer's own would see one example, and not the rows.
"""

from collections.abc import Sequence
from typing import Any

import jax

from purerl.compute.jaxprs import Call, bind


def turn_rows(call: Call, inputs: Sequence[Any]) -> Sequence[Any]:
    """The results of one operation; a product over rows turns an operand over first.

    What is inside loops, branches and checkpoints of a program stays as it is.
    """
    if not _is_over_rows(call):
        return bind(call, inputs)
    primitive, params = call.equation.primitive, dict(call.equation.params)
    params["dimension_numbers"] = (((1,), (0,)), ((), ()))
    a, b = (jax.lax.collapse(each, 0, each.ndim - 1) for each in inputs)

    def product(x, y):
        # Behind a barrier the compiler does not undo it.
        return primitive.bind(jax.lax.optimization_barrier(x.T), y, **params)

    # Nor what it makes of this and of what comes next, where the result is turned over again.
    if a.shape[1] < b.shape[1]:
        return [jax.lax.optimization_barrier(product(a, b))]
    return [jax.lax.optimization_barrier(product(b, a)).T]


def _is_over_rows(call: Call) -> bool:
    """Whether an operation is a product over all axes of both operands but their last ones.

    One that treats its operands differently is not: they may change places.
    """
    if call.equation.primitive.name != "dot_general":
        return False
    params = call.equation.params
    a, b = (each.aval.ndim for each in call.equation.invars)
    rows = tuple(range(a - 1))
    precision = params["precision"]  # None, one for each operand, or an algorithm for both
    are_alike = precision is None or (isinstance(precision, tuple) and len({*precision}) == 1)
    # Within a mesh it is told how the result lies, where it is not spread too.
    is_spread = params["out_sharding"] is not None and any(params["out_sharding"].spec)
    over_rows = params["dimension_numbers"] == ((rows, rows), ((), ()))
    return a == b > 1 and over_rows and are_alike and not is_spread
