"""A scan over keys in which what depends on the keys alone is computed for all steps at once.

In the body of a loop, random numbers are many small operations in every step: on an accelerator
kernels of their own, on a CPU loops within the loop. Ahead of it they are a few large ones. The
keys, and so the numbers drawn, are the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from purerl.compute.jaxprs import Call, Name, Program, interpret, program_of, returned
from purerl.compute.platforms import by_platform

UNROLL = 16  # steps in one turn of the loop where its own work is kernels too; a CPU gains nothing


def scan_keys(
    body: Callable[[Any, Key[Array, "..."]], tuple[Any, Any]],
    carry: PyTree,
    keys: Key[Array, "T ..."],
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan(body, carry, keys)`, with what is drawn from the keys drawn ahead.

    What is made of the keys waits in memory for its step: numbers that are drawn do, and what is
    computed of them as long as it does not grow. An image made of a drawn position is made in the
    step that needs it.
    """
    like = jax.eval_shape(lambda keys: keys[0], keys)
    carry_leaves, treedef = jax.tree.flatten(carry)

    def flat_body(leaves, key):
        after, out = body(jax.tree.unflatten(treedef, leaves), key)
        return jax.tree.leaves(after), out

    program = program_of(flat_body, carry_leaves, like)
    stages = _split(program, num_carried=len(carry_leaves))

    def ahead(key):
        env = {stages.key: key}
        interpret(stages.ahead, env)
        return [env[name] for name in stages.waiting]

    def step(leaves, waiting):
        env = dict(zip(program.inputs, leaves, strict=False)) | dict(
            zip(stages.waiting, waiting, strict=True)
        )
        interpret(stages.inside, env)
        return returned(program, env)

    def loop(unroll):
        return lambda leaves, waiting: jax.lax.scan(step, leaves, waiting, unroll=unroll)

    unrolled = loop(min(UNROLL, keys.shape[0]))
    end, out = by_platform(carry_leaves, jax.vmap(ahead)(keys), cpu=loop(1), default=unrolled)
    return jax.tree.unflatten(treedef, end), out


class Stages(NamedTuple):
    """The operations of a body, parted into those ahead of the loop and those inside."""

    key: Name
    ahead: list[Call]
    inside: list[Call]
    waiting: list[Name]
    """What is computed ahead and read inside."""


def _split(program: Program, num_carried: int) -> Stages:
    key = program.inputs[num_carried]
    early, ahead, inside = {key}, [], []
    for call in program.calls:
        (ahead if _is_early(call, early) else inside).append(call)
        if ahead and ahead[-1] is call:
            early.update(call.outputs)
    needed = [each for call in inside for each in call.inputs] + list(program.outputs)
    waiting = dict.fromkeys(each for each in needed if isinstance(each, Name) and each in early)
    return Stages(key, ahead, inside, list(waiting))


def _is_early(call: Call, early: set[Name]) -> bool:
    """Whether an operation reads keys or what is made of them, nothing else, and does not grow."""
    named = [each for each in call.inputs if isinstance(each, Name)]
    if not named or not all(each in early for each in named) or call.equation.effects:
        return False
    draws = call.equation.primitive.name.startswith("random_")
    return draws or _size(call.outputs) <= _size(named)


def _size(values: Sequence[Name]) -> int:
    return sum(int(np.prod(value.aval.shape)) for value in values)
