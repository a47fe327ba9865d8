"""A function as a list of operations, to be computed in another order or in another way."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend as jex


class Name:
    """A value of the function, by identity."""

    __slots__ = ("aval",)

    def __init__(self, aval: Any):
        self.aval = aval


class Call(NamedTuple):
    """One operation: a primitive on values that have names, or are constants."""

    equation: Any
    inputs: Sequence[Any]
    outputs: Sequence[Name]


class Program(NamedTuple):
    """A function as a list of operations, calls of jitted functions inlined.

    Inputs and outputs are those of all leaves in order.
    """

    inputs: list[Name]
    calls: list[Call]
    outputs: list[Any]
    out: Any
    """The shapes of what the function returns, as it returns it."""


def program_of(function: Callable[..., Any], *args: Any) -> Program:
    """The operations of a function of pytrees of arrays, or of their shapes."""
    traced, out = jax.make_jaxpr(function, return_shape=True)(*args)
    inputs = [Name(each.aval) for each in traced.jaxpr.invars]
    calls: list[Call] = []
    outputs = _inline(traced.jaxpr, traced.consts, inputs, calls)
    return Program(inputs, calls, outputs, out)


def _inline(jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any], calls: list[Call]) -> list:
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def value(atom):
        return atom.val if isinstance(atom, jex.core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        given = [value(atom) for atom in equation.invars]
        if equation.primitive.name == "jit":
            inner = equation.params["jaxpr"]
            results = _inline(inner.jaxpr, inner.consts, given, calls)
        else:
            results = [Name(each.aval) for each in equation.outvars]
            calls.append(Call(equation, given, results))
        values |= dict(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def bind(call: Call, inputs: Sequence[Any]) -> Sequence[Any]:
    """The results of one operation, as it is."""
    primitive = call.equation.primitive
    params = primitive.get_bind_params(call.equation.params)
    with call.equation.ctx.manager:
        out = primitive.bind(*inputs, **params)
    return out if primitive.multiple_results else [out]


Rule = Callable[[Call, Sequence[Any]], Sequence[Any]]


def interpret(calls: Sequence[Call], env: dict[Name, Any], rule: Rule = bind) -> None:
    """Compute operations one after another from the values in `env`, where the results go too."""
    for call in calls:
        out = rule(call, [read(env, each) for each in call.inputs])
        env |= dict(zip(call.outputs, out, strict=True))


def run_program(program: Program, *args: Any, rule: Rule = bind) -> Any:
    """What the function of a program returns, each operation computed by the rule."""
    env = dict(zip(program.inputs, jax.tree.leaves(args), strict=True))
    interpret(program.calls, env, rule)
    return returned(program, env)


def returned(program: Program, env: dict[Name, Any]) -> Any:
    """What the function returns, from the values of all that it returns."""
    out = [read(env, each) for each in program.outputs]
    return jax.tree.unflatten(jax.tree.structure(program.out), out)


def read(env: dict[Name, Any], value: Any) -> Any:
    """The value of a name, or a constant itself."""
    return env[value] if isinstance(value, Name) else value
