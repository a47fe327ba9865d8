"""A scan over keys that computes for all steps at once what depends on the keys alone.

In a loop, random numbers are many small operations a step: kernels on an accelerator, inner loops
on a CPU. Before the loop they are a few large operations, which draw the same numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from purerl.compute.draws import flat_draws
from purerl.compute.jaxprs import (
    Equation,
    Program,
    Var,
    interpret,
    is_jit_disabled,
    outputs_of,
    trace_program,
)
from purerl.compute.mesh import ALONE, Layout
from purerl.compute.platforms import by_platform

MAX_HOISTED_DRAW = 256  # numbers in one draw of one key
UNROLL = 16  # steps in one iteration of an accelerator's loop, each of which costs kernels


def scan_hoisting_draws(
    body: Callable[[Any, Key[Array, "..."]], tuple[Any, Any]],
    carry: PyTree,
    keys: Key[Array, "T ..."],
    layout: Layout = ALONE,
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan(body, carry, keys)`, with what is drawn from the keys drawn before the loop.

    Hoisted values wait in memory for their step. So draws of up to 256 numbers a key are hoisted,
    and what is computed from them as long as it does not grow: a map that is drawn, or an image
    made from a drawn position, is made in its step. Under `jax.disable_jit` nothing is hoisted.
    """
    if is_jit_disabled():
        return jax.lax.scan(body, carry, keys)
    key_shape = jax.eval_shape(lambda keys: keys[0], keys)
    carry_leaves, treedef = jax.tree.flatten(carry)

    def flat_body(leaves, key):
        next_carry, out = body(jax.tree.unflatten(treedef, leaves), key)
        return jax.tree.leaves(next_carry), out

    program = trace_program(flat_body, carry_leaves, key_shape)
    split = _split_body(program, len(carry_leaves), MAX_HOISTED_DRAW * key_shape.size)

    def before_loop(key):
        env = {split.key: key}
        interpret(split.before_loop, env)
        return [env[var] for var in split.hoisted]

    def step(leaves, hoisted):
        env = dict(zip(program.inputs, leaves, strict=False))
        env |= dict(zip(split.hoisted, hoisted, strict=True))
        interpret(split.in_loop, env)
        return outputs_of(program, env)

    def loop(unroll):
        return lambda leaves, hoisted: jax.lax.scan(step, leaves, hoisted, unroll=unroll)

    unrolled = loop(min(UNROLL, keys.shape[0]))
    hoisted = flat_draws(jax.vmap(before_loop), layout)(keys)
    leaves, out = by_platform(carry_leaves, hoisted, cpu=loop(1), default=unrolled)
    return jax.tree.unflatten(treedef, leaves), out


class SplitBody(NamedTuple):
    """The equations of a loop's body, split into those before the loop and those in it."""

    key: Var
    before_loop: list[Equation]
    in_loop: list[Equation]
    hoisted: list[Var]
    """The variables that are computed before the loop and read in it."""


def _split_body(program: Program, num_carried: int, max_draw: int) -> SplitBody:
    key = program.inputs[num_carried]
    available, before_loop, in_loop = {key}, [], []
    for equation in program.equations:
        if _is_hoistable(equation, available, max_draw):
            before_loop.append(equation)
            available.update(equation.outputs)
        else:
            in_loop.append(equation)
    read = [atom for equation in in_loop for atom in equation.inputs] + list(program.outputs)
    hoisted = dict.fromkeys(atom for atom in read if isinstance(atom, Var) and atom in available)
    return SplitBody(key, before_loop, in_loop, list(hoisted))


def _is_hoistable(equation: Equation, available: set[Var], max_draw: int) -> bool:
    """Whether an equation reads nothing but `available`, and draws little or does not grow."""
    inputs = [atom for atom in equation.inputs if isinstance(atom, Var)]
    if not inputs or not all(var in available for var in inputs) or equation.eqn.effects:
        return False
    is_draw = equation.eqn.primitive.name.startswith("random_")
    return _size(equation.outputs) <= max(_size(inputs), max_draw if is_draw else 0)


def _size(variables: Sequence[Var]) -> int:
    return sum(int(np.prod(var.aval.shape)) for var in variables)
