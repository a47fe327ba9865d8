"""The gradient of a layer's weights, in the form that a CPU computes fastest.

It is a product over the rows of a batch, `a.T @ b`. XLA's CPU backend has a fast library for matrix
products, but not for this form. Transposing the smaller operand in memory gives a form that it has.
The rule works on a traced gradient: a rule of the layer would see one example, and not the rows.
"""

from collections.abc import Sequence
from typing import Any

import jax

from purerl.compute.jaxprs import Equation, bind
from purerl.compute.platforms import by_platform


def transpose_matmul(equation: Equation, inputs: Sequence[Any]) -> Sequence[Any]:
    """The results of an equation; on a CPU, a product over rows transposes an operand first.

    Equations inside loops, branches and checkpoints stay as they are.
    """
    if not _contracts_rows(equation):
        return bind(equation, inputs)
    return by_platform(
        *inputs,
        cpu=lambda *inputs: _transposed(equation, inputs),
        default=lambda *inputs: bind(equation, inputs),
    )


def _transposed(equation: Equation, inputs: Sequence[Any]) -> Sequence[Any]:
    primitive, params = equation.eqn.primitive, dict(equation.eqn.params)
    params["dimension_numbers"] = (((1,), (0,)), ((), ()))
    a, b = (jax.lax.collapse(operand, 0, operand.ndim - 1) for operand in inputs)

    def product(x, y):
        # The barrier keeps the compiler from undoing the transpose.
        return primitive.bind(jax.lax.optimization_barrier(x.T), y, **params)

    # A second barrier: a transpose that follows would undo it too.
    if a.shape[1] < b.shape[1]:
        return [jax.lax.optimization_barrier(product(a, b))]
    return [jax.lax.optimization_barrier(product(b, a)).T]


def _contracts_rows(equation: Equation) -> bool:
    """Whether an equation is a product over all axes of both operands but their last ones.

    The operands may change places, so they need the same precision.
    """
    if equation.eqn.primitive.name != "dot_general":
        return False
    params = equation.eqn.params
    ndim, other_ndim = (invar.aval.ndim for invar in equation.eqn.invars)
    rows = tuple(range(ndim - 1))
    precision = params["precision"]  # None, one for each operand, or an algorithm for both
    are_alike = precision is None or (isinstance(precision, tuple) and len({*precision}) == 1)
    # Within a mesh, a result that is not sharded has an out_sharding too.
    is_sharded = params["out_sharding"] is not None and any(params["out_sharding"].spec)
    over_rows = params["dimension_numbers"] == ((rows, rows), ((), ()))
    return ndim == other_ndim > 1 and over_rows and are_alike and not is_sharded
