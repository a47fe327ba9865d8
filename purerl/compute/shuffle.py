"""Shuffles that do not sort: a permutation as a few operations on each index alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt

ROUNDS = 24


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
