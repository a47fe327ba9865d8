"""Rows of a batch in blocks.

An accelerator has memory for more seeds then, and what a core computes of a block stays in its
cache.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped, UInt

from purerl.checks import divisors
from purerl.compute.jaxprs import bind, program_of, run_program
from purerl.compute.matmul import turn_rows
from purerl.compute.mesh import (
    num_seed_devices,
    over_envs,
    spread_envs,
)
from purerl.compute.platforms import by_platform
from purerl.types import Baseline

ROWS = 1024  # of a block, at most
WHOLE = 2048  # rows that an accelerator does not divide: a block is launches of its own there

ROUNDS = 24

CUT_ROWS = 64  # values of successors that are computed together


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


def shuffles(key: Key[Array, ""], count: int, size: int) -> Int[Array, "count size"]:
    """Draw `count` random orders of `size` rows, each a permutation of `0 … size − 1`.

    In each of 24 rounds of a swap-or-not shuffle the indices pair up, i with `k − i` modulo `size`,
    and a hash of the pair and the round says whether the two change places: a bijection for every
    size. Nearly uniform: for a few rows not every order is as likely as another.

    Hoang, Morris and Rogaway (2012), "An enciphering scheme based on a card shuffle".
    """
    offsets, masks = jax.random.bits(key, (2, ROUNDS, count, 1))
    offsets = offsets % jnp.uint32(size)
    index = jnp.broadcast_to(jnp.arange(size, dtype=jnp.uint32), (count, size))
    for i in range(ROUNDS):
        partner = offsets[i] - index
        partner = jnp.where(offsets[i] < index, partner + jnp.uint32(size), partner)
        swapped = _hash(jnp.maximum(index, partner) ^ masks[i]) >> 31
        index = jnp.where(swapped == 1, partner, index)
    return index.astype(jnp.int32)


def _hash(x: UInt[Array, "..."]) -> UInt[Array, "..."]:
    """Mix 32 bits: the last steps of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _value_where_cut(
    baseline: Baseline,
    cut: Bool[Array, " rows"],
    next_obs: Float[Array, "rows *obs"],
    value: Float[Array, " rows"],
) -> Float[Array, " rows"]:
    """V of the observations behind a cut, which are few, in blocks of rows; else the given value.

    For a CPU: on an accelerator the loop costs more than the values of all rows.
    """
    num_rows = len(cut)
    size = min(num_rows, CUT_ROWS)
    (found,) = jnp.nonzero(cut, size=num_rows + size, fill_value=num_rows)

    def block(now):
        start, value = now
        rows = jax.lax.dynamic_slice(found, (start,), (size,))
        of_cut = jax.vmap(baseline)(next_obs[jnp.minimum(rows, num_rows - 1)])
        return start + size, value.at[rows].set(of_cut, mode="drop")

    def is_left(now):
        return now[0] < jnp.sum(cut)

    return jax.lax.while_loop(is_left, block, (0, value))[1]


def as_rows(x: Shaped[Array, "T N ..."]) -> Shaped[Array, "rows ..."]:
    """A rollout's array as rows `[T · N]`, or `[N · T]` where environments are spread.

    There each device goes on with the rows of its own environments.
    """
    if over_envs() > 1:
        return spread_envs(x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), 0)
    return x.reshape(-1, *x.shape[2:])


def of_rows(rows: Shaped[Array, "rows ..."], shape: tuple[int, ...]) -> Shaped[Array, "T N ..."]:
    """Rows as the array `[T, N]` that they were made of."""
    length, num_envs = shape
    if over_envs() > 1:
        return spread_envs(rows.reshape(num_envs, length, *rows.shape[1:]).swapaxes(0, 1), 1)
    return rows.reshape(length, num_envs, *rows.shape[1:])


def row_numbers(rows: Shaped[Array, "..."], shape: tuple[int, ...]) -> Shaped[Array, "..."]:
    """The places among `as_rows` of rows that are numbered `t · N + n`."""
    length, num_envs = shape
    return rows % num_envs * length + rows // num_envs if over_envs() > 1 else rows
