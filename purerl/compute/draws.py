"""Random numbers drawn together, in one flat axis, which compiles faster on a CPU.

For a CPU, jax makes each draw a loop of the shape that was asked for, and LLVM unrolls its short
last axes: bits of shape `(2, 24, 4, 1)` become far more code than the same 192 in a row.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jaxtyping import Array, UInt

from purerl.compute.jaxprs import (
    Equation,
    Var,
    interpret,
    is_jit_disabled,
    lookup,
    outputs_of,
    trace_program,
)
from purerl.compute.mesh import ALONE, Layout

DRAWS = ("random_bits", "random_split", "random_fold_in")
SIZES = (8, 256)  # small draws are padded to one of these: loops of one size share their kernels


def flat_draws(function: Callable[..., Any], layout: Layout = ALONE) -> Callable[..., Any]:
    """A function that draws the same numbers from threefry keys, in as few flat draws as it can.

    Draws that do not depend on each other are one. Those inside loops and branches stay as they
    are; all do where devices share an agent's environments, and under `jax.disable_jit`.
    """

    def drawing_flat(*args: Any) -> Any:
        if is_jit_disabled() or layout.envs > 1:
            return function(*args)
        program = trace_program(function, *args)
        env = dict(zip(program.inputs, jax.tree.leaves(args), strict=True))
        for equations, draws in _stages(program.equations):
            interpret(equations, env)
            _draw(draws, env)
        return outputs_of(program, env)

    return drawing_flat


class Stage(NamedTuple):
    """Equations that depend on the draws of earlier stages alone, and the draws that follow."""

    equations: list[Equation]
    draws: list[Equation]


def _stages(equations: Sequence[Equation]) -> list[Stage]:
    """Equations by the number of draws, one after another, that they depend on."""
    depth: dict[Var, int] = defaultdict(int)
    stages: dict[int, Stage] = defaultdict(lambda: Stage([], []))
    for equation in equations:
        stage = max((depth[atom] for atom in equation.inputs if isinstance(atom, Var)), default=0)
        is_flat = _can_flatten(equation)
        (stages[stage].draws if is_flat else stages[stage].equations).append(equation)
        depth |= dict.fromkeys(equation.outputs, stage + is_flat)
    return [stages[stage] for stage in sorted(stages)]


def _can_flatten(equation: Equation) -> bool:
    """Whether an equation draws numbers that depend on their count, and not on their shape."""
    if equation.eqn.primitive.name not in DRAWS:
        return False
    keys, out = equation.eqn.invars[0].aval, equation.outputs[0].aval
    is_word = equation.eqn.params.get("bit_width", 32) == 32
    is_partitionable = getattr(jax.config, "jax_threefry_partitionable")  # noqa: B009
    return keys.dtype.name == "key<fry>" and is_word and is_partitionable and out.size > 0


def _draw(draws: Sequence[Equation], env: dict[Var, Any]) -> None:
    """Draw the numbers of several equations at once, and add them to `env`."""
    if not draws:
        return
    inputs = [[lookup(env, atom) for atom in draw.inputs] for draw in draws]
    operands = [_operands(draw, *arrays) for draw, arrays in zip(draws, inputs, strict=True)]
    count = sum(len(low) for *_, low in operands)
    padding = jnp.zeros(next((size for size in SIZES if count <= size), count) - count, jnp.uint32)
    first, second, low = (
        jnp.concatenate([*parts, padding]) for parts in zip(*operands, strict=True)
    )
    words = threefry2x32_p.bind(first, second, jnp.zeros_like(low), low)
    begin = 0
    for draw, (keys, *_), (_, _, own) in zip(draws, inputs, operands, strict=True):
        (out,), end = draw.outputs, begin + len(own)
        pair = [word[begin:end].reshape(out.aval.shape) for word in words]
        begin = end
        if draw.eqn.primitive.name == "random_bits":
            env[out] = pair[0] ^ pair[1]
        else:
            impl = jax.random.key_impl(keys)
            env[out] = jax.random.wrap_key_data(jnp.stack(pair, axis=-1), impl=impl)


def _operands(draw: Equation, keys: Array, number: Any = None) -> list[UInt[Array, " n"]]:
    """The two words of a key, and what they encrypt, for each number that a draw gives."""
    data = jax.random.key_data(keys)
    shape = draw.outputs[0].aval.shape
    if number is None:  # the place of the number
        count = math.prod(draw.eqn.params["shape"])
        number = jnp.arange(count, dtype=jnp.uint32)
        data, shape = data[..., None, :], (*keys.shape, count)
    parts = (data[..., 0], data[..., 1], number)
    return [jnp.broadcast_to(part, shape).astype(jnp.uint32).reshape(-1) for part in parts]
