"""The rows of a batch: a rollout laid out as rows, shuffled, and computed in blocks.

A row is one entry of the leading axis; nothing here looks into it. In blocks, an accelerator has
memory for more seeds, and the arrays of a CPU's core stay in its cache.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree, Shaped, UInt

from purerl.checks import divisors
from purerl.compute.derivatives import with_derivative_of
from purerl.compute.draws import flat_draws
from purerl.compute.jaxprs import eval_program, trace_program
from purerl.compute.matmul import transpose_matmul
from purerl.compute.mesh import ALONE, Layout, constrain_envs
from purerl.compute.platforms import by_platform, linear_recurrence

MAX_BLOCK_ROWS = 1024  # rows
MAX_WHOLE_ROWS = 2048  # rows that an accelerator leaves whole: each block costs kernel launches
CHOSEN_BLOCK_ROWS = 64  # rows in a block of those that a mask chooses
SHUFFLE_ROUNDS = 24  # of a shuffle


def flatten_rows(
    rollout: PyTree[Shaped[Array, "T N ..."]], layout: Layout = ALONE
) -> PyTree[Shaped[Array, "rows ..."]]:
    """A rollout's arrays as rows `[T · N]`, or `[N · T]` where devices share the environments.

    Each device then keeps the rows of its own environments.
    """

    def flatten(x):
        if layout.envs > 1:
            return constrain_envs(x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), 0, layout)
        return x.reshape(-1, *x.shape[2:])

    return jax.tree.map(flatten, rollout)


def unflatten_rows(
    rows: Shaped[Array, "rows ..."], shape: tuple[int, int], layout: Layout = ALONE
) -> Shaped[Array, "T N ..."]:
    """The inverse of `flatten_rows`, with `shape` the pair `(T, N)`."""
    length, num_envs = shape
    if layout.envs > 1:
        of_envs = rows.reshape(num_envs, length, *rows.shape[1:])
        return constrain_envs(of_envs.swapaxes(0, 1), 1, layout)
    return rows.reshape(length, num_envs, *rows.shape[1:])


def take_rows(batch: PyTree, rows: Int[Array, " rows"], layout: Layout = ALONE) -> PyTree:
    """The rows of a batch at these positions."""
    return constrain_envs(jax.tree.map(lambda x: x[rows], batch), 0, layout)


def shuffled_rows(
    key: Key[Array, ""], count: int, shape: tuple[int, int], layout: Layout = ALONE
) -> Int[Array, "count rows"]:
    """The positions of the rows of a rollout `[T, N]`, in `count` random orders."""
    # The order of steps and environments is the same for either layout of the rows.
    return row_numbers(permutations(key, count, shape[0] * shape[1], layout), shape, layout)


def row_numbers(
    rows: Shaped[Array, "..."], shape: tuple[int, int], layout: Layout = ALONE
) -> Shaped[Array, "..."]:
    """The position in `flatten_rows` of the row `t · N + n` of a rollout `[T, N]`."""
    length, num_envs = shape
    return rows % num_envs * length + rows // num_envs if layout.envs > 1 else rows


def permutations(
    key: Key[Array, ""], count: int, size: int, layout: Layout = ALONE
) -> Int[Array, "count size"]:
    """Draw `count` permutations of `0 … size − 1`, without a sort.

    It is a swap-or-not shuffle. In each of 24 rounds i is paired with `k − i` modulo `size`, and a
    hash of pair and round says whether the two are swapped: a bijection for every size. It is
    nearly uniform: for a few rows some orders are likelier than others.

    Hoang, Morris and Rogaway (2012), "An enciphering scheme based on a card shuffle".
    """
    if size == 1:  # jaxlib 0.11.2 cannot compile rounds of one row for a CPU
        return jnp.zeros((count, 1), jnp.int32)
    num_words = 2 * SHUFFLE_ROUNDS * count
    numbers = flat_draws(lambda key: jax.random.bits(key, (num_words,)), layout)(key)
    half = SHUFFLE_ROUNDS * count
    offsets = (numbers[:half] % jnp.uint32(size)).reshape(SHUFFLE_ROUNDS, count, 1)
    masks = numbers[half:].reshape(SHUFFLE_ROUNDS, count, 1)
    index = jnp.broadcast_to(jnp.arange(size, dtype=jnp.uint32), (count, size))
    for i in range(SHUFFLE_ROUNDS):
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


def map_rows(function: Callable[[Any], Any], rows: PyTree, layout: Layout = ALONE) -> Any:
    """`jax.vmap(function)(rows)`, in blocks where there are many rows."""
    mapped = jax.vmap(function)

    def in_blocks(length, rows):
        if length == _count(rows):
            return mapped(rows)
        out = jax.lax.map(mapped, _blocks(rows, length))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

    return _by_block_length(in_blocks, rows, layout)


def map_rows_where(
    function: Callable[[Any], Array],
    mask: Bool[Array, " rows"],
    rows: Shaped[Array, "rows ..."],
    other: Shaped[Array, " rows"],
    layout: Layout = ALONE,
) -> Shaped[Array, " rows"]:
    """`where(mask, jax.vmap(function)(rows), other)`, where few rows are chosen.

    A CPU computes the chosen rows alone, in a loop. On an accelerator all rows cost less than that
    loop; and where devices share the rows, it would gather them. The derivative is that of all rows
    in either case: a loop of unknown length has none backwards.

    **Arguments:** `function` is a module, so that its derivative is seen.
    """

    def map_all(function, mask, rows, other):
        return jnp.where(mask, map_rows(function, rows, layout), other)

    def map_all_apart(function, mask, rows, other):
        # What is not chosen may have no finite derivative.
        chosen = jax.vmap(lambda is_chosen, row: jnp.where(is_chosen, row, 0))(mask, rows)
        return map_all(function, mask, chosen, other)

    @with_derivative_of(map_all_apart)
    def map_where(function, mask, rows, other):
        on_cpu = _map_chosen if layout.envs == 1 else map_all
        ways = {"cpu": on_cpu, "default": map_all}
        ways = {platform: functools.partial(way, function) for platform, way in ways.items()}
        return by_platform(mask, rows, other, **ways)

    return map_where(function, mask, rows, other)


def _map_chosen(
    function: Callable[[Any], Array],
    mask: Bool[Array, " rows"],
    rows: Shaped[Array, "rows ..."],
    other: Shaped[Array, " rows"],
) -> Shaped[Array, " rows"]:
    """`map_rows_where`, by a loop over blocks of the chosen rows."""
    num_rows = len(mask)
    length = min(num_rows, CHOSEN_BLOCK_ROWS)
    positions = _positions(mask, num_rows + length)

    def map_block(carry):
        start, out = carry
        block = jax.lax.dynamic_slice(positions, (start,), (length,))
        mapped = jax.vmap(function)(rows[jnp.minimum(block, num_rows - 1)])
        return start + length, out.at[block].set(mapped, mode="drop")

    def has_rows_left(carry):
        return positions[carry[0]] < num_rows

    return jax.lax.while_loop(has_rows_left, map_block, (0, other))[1]


def _positions(mask: Bool[Array, " rows"], size: int) -> Int[Array, " size"]:
    """The positions of the chosen rows, in order; behind them the number of rows.

    Counted within blocks by a product with a triangle, and over blocks one after another:
    `jnp.nonzero` counts by trees of windows, which are slow to compile.
    """
    num_rows = len(mask)
    blocks = jnp.pad(mask, (0, -num_rows % CHOSEN_BLOCK_ROWS)).reshape(-1, CHOSEN_BLOCK_ROWS)
    blocks = blocks.astype(jnp.float32)
    within = blocks @ jnp.triu(jnp.ones((CHOSEN_BLOCK_ROWS, CHOSEN_BLOCK_ROWS)), 1)
    counts = jnp.sum(blocks, 1)
    before = linear_recurrence(counts, jnp.ones_like(counts), reverse=False) - counts
    rank = (within + before[:, None]).reshape(-1)[:num_rows].astype(jnp.int32)
    empty = jnp.full(size, num_rows)
    return empty.at[jnp.where(mask, rank, size)].set(jnp.arange(num_rows), mode="drop")


def sum_rows(function: Callable[[PyTree], PyTree], rows: PyTree, layout: Layout = ALONE) -> PyTree:
    """`function(rows)`, which must be a sum over rows, in blocks where there are many."""
    if layout.envs > 1:
        return function(rows)

    @functools.cache
    def program(length):
        return trace_program(function, _block_shapes(rows, length))

    def sum_block(length, rows):
        return eval_program(program(length), rows, rule=transpose_matmul)

    def in_blocks(length, rows):
        if length == _count(rows):
            return sum_block(length, rows)

        def add(total, block):
            block_sum = sum_block(length, block)
            return jax.tree.map(jnp.add, total, block_sum), None

        zeros = jax.tree.map(lambda out: jnp.zeros(out.shape, out.dtype), program(length).out)
        return jax.lax.scan(add, zeros, _blocks(rows, length))[0]

    return _by_block_length(in_blocks, rows, layout)


def block_length(num_rows: int) -> int:
    """The rows of a block: the largest divisor of `num_rows` up to 1024.

    It is `num_rows` where that divisor is below 256, as for few rows or a prime number of them.
    """
    largest = max(size for size in divisors(num_rows) if size <= MAX_BLOCK_ROWS)
    return largest if largest >= MAX_BLOCK_ROWS // 4 else num_rows


def _block_lengths(rows: PyTree, layout: Layout) -> tuple[int, int]:
    """The rows of a block on a CPU, and elsewhere.

    Rows that devices share stay whole: blocks would move them. So do those of a single CPU device,
    whose cores share all rows better than a block. Several CPU devices are a core each.
    """
    num_rows = _count(rows)
    if layout.envs > 1:
        return num_rows, num_rows
    length = block_length(num_rows)
    return (
        length if layout.seeds > 1 else num_rows,
        length if num_rows > MAX_WHOLE_ROWS else num_rows,
    )


def _by_block_length(in_blocks: Callable[[int, PyTree], Any], rows: PyTree, layout: Layout) -> Any:
    """`in_blocks(length, rows)`, with the length that suits the platform."""
    cpu_length, default_length = _block_lengths(rows, layout)
    if cpu_length == default_length:
        return in_blocks(cpu_length, rows)
    return by_platform(
        rows,
        cpu=functools.partial(in_blocks, cpu_length),
        default=functools.partial(in_blocks, default_length),
    )


def _count(rows: PyTree) -> int:
    return jax.tree.leaves(rows)[0].shape[0]


def _blocks(rows: PyTree, length: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, length, *leaf.shape[1:]), rows)


def _block_shapes(rows: PyTree, length: int) -> PyTree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((length, *leaf.shape[1:]), leaf.dtype), rows
    )
