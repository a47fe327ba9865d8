"""Rows of a batch in blocks, so that what is computed of them need not be in memory at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from purerl.checks import divisors
from purerl.sharding import over_envs

ROWS = 1024  # of a block, at most
WHOLE = 2048  # rows that are not divided


def block_rows(num_rows: int) -> int:
    """The rows of a block: the largest divisor of all rows up to 1024; of few rows, all.

    All too where that divisor is below 256: of a prime number of rows, say.
    """
    largest = max(size for size in divisors(num_rows) if size <= ROWS)
    return num_rows if num_rows <= WHOLE or largest < ROWS // 4 else largest


def map_rows(function: Callable[[Any], Any], rows: PyTree) -> Any:
    """`jax.vmap(function)(rows)`; in blocks, but on a CPU."""
    return _on_platform(
        rows,
        whole=lambda rows: jax.vmap(function)(rows),
        in_blocks=lambda blocks: jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:]),
            jax.lax.map(jax.vmap(function), blocks),
        ),
    )


def sum_rows(function: Callable[[PyTree], PyTree], rows: PyTree) -> PyTree:
    """`function(rows)`, which is a sum over rows; in blocks, but on a CPU.

    A CPU gains nothing by blocks: its memory is large, and its products slower.
    """

    def add_up(blocks):
        def add(total, block):
            return jax.tree.map(jnp.add, total, function(block)), None

        like = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], blocks))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return jax.lax.scan(add, nothing, blocks)[0]

    return _on_platform(rows, whole=function, in_blocks=add_up)


def _on_platform(rows: PyTree, *, whole: Callable[..., Any], in_blocks: Callable[..., Any]) -> Any:
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    size = block_rows(num_rows)
    # Rows that several devices share are fewer on each already, and are not moved between them.
    if size == num_rows or over_envs() > 1:
        return whole(rows)

    def divided(rows):
        return in_blocks(jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), rows))

    return jax.lax.platform_dependent(rows, cpu=whole, default=divided)
