"""The gradient of a layer's weights, as a CPU computes it best.

It is `a.T @ b` over the rows of a batch, which are the first axis of both. XLA's CPU backend has a
fast library for products, but not in this form; in this form they take twice as long, and where one
operand has few columns ten times. With the smaller operand turned over in memory it is fast too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from purerl.operations import Call, compute, program_of, read, run


def with_rows_turned(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same function of a pytree, whose products over rows turn an operand over first."""

    def turned(arg):
        program, shapes = program_of(function, arg)
        env = dict(zip(program.inputs, jax.tree.leaves(arg), strict=True))
        run(program.calls, env, _compute_turned)
        out = [read(env, each) for each in program.outputs]
        return jax.tree.unflatten(jax.tree.structure(shapes), out)

    return turned


def _compute_turned(call: Call, inputs: Sequence[Any]) -> Sequence[Any]:
    if not _is_over_rows(call):
        return compute(call, inputs)
    primitive, params = call.equation.primitive, dict(call.equation.params)
    params["dimension_numbers"] = (((1,), (0,)), ((), ()))
    a, b = (each.reshape(-1, each.shape[-1]) for each in inputs)

    def product(x, y):
        # Behind a barrier the compiler does not undo it.
        return primitive.bind(jax.lax.optimization_barrier(x.T), y, **params)

    if a.shape[1] >= b.shape[1]:
        return [product(b, a).T]
    # Where the result is turned over next, it would undo that together with this.
    return [jax.lax.optimization_barrier(product(a, b))]


def _is_over_rows(call: Call) -> bool:
    """Whether an operation is a product over all axes of both operands but their last ones."""
    if call.equation.primitive.name != "dot_general":
        return False
    over, batch = call.equation.params["dimension_numbers"]
    ndims = {each.aval.ndim for each in call.equation.invars}
    rows = tuple(range(max(ndims) - 1))
    return len(ndims) == 1 and rows != () and over == (rows, rows) and batch == ((), ())
