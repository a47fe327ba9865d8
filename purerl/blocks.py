"""Rows of a batch in blocks, so that what is computed of them need not be in memory at once.

An accelerator's memory holds more seeds that way, and the caches of a core what a block takes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from purerl.checks import divisors
from purerl.products import with_rows_turned
from purerl.sharding import over_envs, over_seeds

ROWS = 1024  # of a block, at most
WHOLE = 2048  # rows that an accelerator does not divide: a block is launches of its own there


def block_rows(num_rows: int) -> int:
    """The rows of a block: the largest divisor of all rows up to 1024.

    All rows where that divisor is below 256: of a prime number of rows, say.
    """
    largest = max(size for size in divisors(num_rows) if size <= ROWS)
    return num_rows if largest < min(num_rows, ROWS // 4) else largest


def map_rows(function: Callable[[Any], Any], rows: PyTree) -> Any:
    """`jax.vmap(function)(rows)`, in blocks where there are many rows."""

    def map_blocks(function, blocks):
        mapped = jax.lax.map(function, blocks)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), mapped)

    mapped = jax.vmap(function)
    return _on_platform(rows, map_blocks, cpu=mapped, default=mapped)


def sum_rows(function: Callable[[PyTree], PyTree], rows: PyTree) -> PyTree:
    """`function(rows)`, which is a sum over rows, in blocks where there are many."""

    def sum_blocks(function, blocks):
        def add(total, block):
            return jax.tree.map(jnp.add, total, function(block)), None

        like = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], blocks))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return jax.lax.scan(add, nothing, blocks)[0]

    return _on_platform(rows, sum_blocks, cpu=with_rows_turned(function), default=function)


def _on_platform(
    rows: PyTree,
    of_blocks: Callable[..., Any],
    *,
    cpu: Callable[..., Any],
    default: Callable[..., Any],
) -> Any:
    """The platform's function of all rows, or `of_blocks` of it and of blocks of them."""
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    # Rows that several devices share are fewer on each already, and are not moved between them.
    if over_envs() > 1:
        return default(rows)

    def in_blocks(function, size):
        def computed(rows):
            if size == num_rows:
                return function(rows)
            blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), rows)
            return of_blocks(function, blocks)

        return computed

    size = block_rows(num_rows)
    return jax.lax.platform_dependent(
        rows,
        # One device is all cores of a CPU, which share the work of all rows better than of a block.
        cpu=in_blocks(cpu, size if over_seeds() > 1 else num_rows),
        default=in_blocks(default, size if num_rows > WHOLE else num_rows),
    )
