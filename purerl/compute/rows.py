"""Rows of a batch in blocks.

An accelerator has memory for more seeds then, and what a core computes of a block stays in its
cache.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from purerl.checks import divisors
from purerl.compute.jaxprs import bind, program_of, run_program
from purerl.compute.matmul import turn_rows
from purerl.compute.mesh import num_seed_devices, over_envs
from purerl.compute.platforms import by_platform

ROWS = 1024  # of a block, at most
WHOLE = 2048  # rows that an accelerator does not divide: a block is launches of its own there


def block_rows(num_rows: int) -> int:
    """The rows of a block: the largest divisor of all rows up to 1024.

    All rows where that divisor is below 256: few rows, or a prime number of them, say.
    """
    largest = max(size for size in divisors(num_rows) if size <= ROWS)
    return largest if largest >= ROWS // 4 else num_rows


def map_rows(function: Callable[[Any], Any], rows: PyTree) -> Any:
    """`jax.vmap(function)(rows)`, in blocks where there are many rows."""
    mapped = jax.vmap(function)

    def in_blocks(size, rows):
        if size == _count(rows):
            return mapped(rows)
        out = jax.lax.map(mapped, _blocks(rows, size))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

    on_cpu, elsewhere = _sizes(rows)
    if on_cpu == elsewhere:
        return in_blocks(on_cpu, rows)
    return by_platform(
        rows,
        cpu=functools.partial(in_blocks, on_cpu),
        default=functools.partial(in_blocks, elsewhere),
    )


def sum_rows(function: Callable[[PyTree], PyTree], rows: PyTree) -> PyTree:
    """`function(rows)`, which is a sum over rows, in blocks where there are many."""
    if over_envs() > 1:
        return function(rows)

    @functools.cache
    def program(size):
        return program_of(function, _block(rows, size))

    def in_blocks(size, rule, rows):
        if size == _count(rows):
            return run_program(program(size), rows, rule=rule)

        def add(total, block):
            return jax.tree.map(jnp.add, total, run_program(program(size), block, rule=rule)), None

        nothing = jax.tree.map(lambda out: jnp.zeros(out.shape, out.dtype), program(size).out)
        return jax.lax.scan(add, nothing, _blocks(rows, size))[0]

    on_cpu, elsewhere = _sizes(rows)
    if on_cpu == elsewhere:
        program(on_cpu)  # before either way is traced: what is traced within one is no other's
    return by_platform(
        rows,
        cpu=functools.partial(in_blocks, on_cpu, turn_rows),
        default=functools.partial(in_blocks, elsewhere, bind),
    )


def _count(rows: PyTree) -> int:
    return jax.tree.leaves(rows)[0].shape[0]


def _sizes(rows: PyTree) -> tuple[int, int]:
    """The rows of a block on a CPU, and elsewhere.

    Rows that several devices share are fewer on each already, and are not moved between them. With
    one device, a CPU's cores share the work of all rows better than that of a block; with several,
    each is a core, as on the command line.
    """
    num_rows = _count(rows)
    if over_envs() > 1:
        return num_rows, num_rows
    size = block_rows(num_rows)
    return (
        size if num_seed_devices() > 1 else num_rows,
        size if num_rows > WHOLE else num_rows,
    )


def _blocks(rows: PyTree, size: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), rows)


def _block(rows: PyTree, size: int) -> PyTree:
    """The shapes of a block."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), rows
    )
