"""A traced function as a list of equations, to be computed in another order or in another way."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend as jex


class Var:
    """A variable of a program, compared by identity."""

    __slots__ = ("aval",)

    def __init__(self, aval: Any):
        self.aval = aval


class Equation(NamedTuple):
    """One operation: a primitive applied to variables and constants."""

    eqn: Any
    inputs: Sequence[Any]
    outputs: Sequence[Var]


class Program(NamedTuple):
    """A function of flattened pytrees as a list of equations, calls of jitted functions inlined."""

    inputs: list[Var]
    equations: list[Equation]
    outputs: list[Any]
    out: Any
    """The pytree that the function returns, as shapes and dtypes."""


def is_jit_disabled() -> bool:
    """Whether a user looks at each operation by itself, as its own code calls it."""
    return getattr(jax.config, "jax_disable_jit")  # noqa: B009


def traced(function: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], Any]:
    """The function, traced once for all calls with such arguments, and the shapes of its result."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    treedef = jax.tree.structure(shapes)

    def call(*args):
        return treedef.unflatten(jex.core.jaxpr_as_fun(closed)(*jax.tree.leaves(args)))

    return call, shapes


def trace_program(function: Callable[..., Any], *args: Any) -> Program:
    """The program of a function; its arguments are pytrees of arrays, or of their shapes."""
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    inputs = [Var(invar.aval) for invar in closed.jaxpr.invars]
    equations: list[Equation] = []
    outputs = _inline(closed.jaxpr, closed.consts, inputs, equations)
    return Program(inputs, equations, outputs, out)


def _inline(
    jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any], equations: list[Equation]
) -> list:
    """Append the equations of a jaxpr, and return its outputs."""
    env = dict(zip(jaxpr.constvars, consts, strict=True))
    env |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, jex.core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        arguments = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name == "jit":
            inner = eqn.params["jaxpr"]
            results = _inline(inner.jaxpr, inner.consts, arguments, equations)
        else:
            results = [Var(outvar.aval) for outvar in eqn.outvars]
            equations.append(Equation(eqn, arguments, results))
        env |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(equation: Equation, inputs: Sequence[Any]) -> Sequence[Any]:
    """The results of an equation, computed by its own primitive."""
    primitive = equation.eqn.primitive
    params = primitive.get_bind_params(equation.eqn.params)
    with equation.eqn.ctx.manager:
        out = primitive.bind(*inputs, **params)
    return out if primitive.multiple_results else [out]


Rule = Callable[[Equation, Sequence[Any]], Sequence[Any]]


def interpret(equations: Sequence[Equation], env: dict[Var, Any], rule: Rule = bind) -> None:
    """Compute equations one after another: read values from `env`, and add the results to it."""
    for equation in equations:
        out = rule(equation, [lookup(env, atom) for atom in equation.inputs])
        env |= dict(zip(equation.outputs, out, strict=True))


def eval_program(program: Program, *args: Any, rule: Rule = bind) -> Any:
    """What the function of a program returns, each equation computed by the rule."""
    env = dict(zip(program.inputs, jax.tree.leaves(args), strict=True))
    interpret(program.equations, env, rule)
    return outputs_of(program, env)


def depends_on_input(function: Callable[[Any], Any], arg: Any) -> bool:
    """Whether anything that a function returns depends on its argument; nothing is computed."""
    program = trace_program(function, arg)
    reached = set(program.inputs)
    for equation in program.equations:
        if any(isinstance(atom, Var) and atom in reached for atom in equation.inputs):
            reached.update(equation.outputs)
    return any(isinstance(atom, Var) and atom in reached for atom in program.outputs)


def outputs_of(program: Program, env: dict[Var, Any]) -> Any:
    """What the function of a program returns, read from `env`."""
    out = [lookup(env, atom) for atom in program.outputs]
    return jax.tree.unflatten(jax.tree.structure(program.out), out)


def lookup(env: dict[Var, Any], atom: Any) -> Any:
    """The value of a variable; a constant is its own value."""
    return env[atom] if isinstance(atom, Var) else atom
