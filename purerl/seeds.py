"""Seeds: their ids, their keys, and the random streams that are derived from a key."""

import collections
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from purerl.checks import is_typed_key, short_repr

# A stream is a number that is folded into a key. Seed ids, updates and splits stay below 2**31, so
# none is a stream. Any function may get any key (a root's, a seed's, a state's): two parts of the
# library never draw the same numbers.
FIRST_STREAM = 2**31
INIT, TRAIN, EVALUATE = range(FIRST_STREAM, FIRST_STREAM + 3)


def seed_keys(root: int | Array, seeds: int | Sequence[int] | np.ndarray) -> Key[Array, " seeds"]:
    """The keys of many seeds: `fold_in(root, id)` for each id.

    A seed's draws depend on the root and its id alone: seed 5 is the same agent among 8 seeds,
    among 64, and by itself.

    **Arguments:** `root` is an int or a typed key; `seeds` a count, for the ids 0 … seeds − 1, or
    the ids themselves.

    **Raises:** `ValueError` where ids repeat, are negative, or there are none.
    """
    ids = seed_ids(seeds)
    root_key = jax.random.key(root) if is_root_seed(root) else root
    if not is_typed_key(root_key):
        raise ValueError(
            f"root = {short_repr(root)} must be an int from 0 to 2**32 - 1 or a typed key, "
            f"jax.random.key(0)."
        )
    return jax.vmap(jax.random.fold_in, (None, 0))(root_key, jnp.asarray(ids, jnp.uint32))


def is_root_seed(root: Any) -> bool:
    """Whether a value is a number that makes a root key of its own."""
    return isinstance(root, int | np.integer) and 0 <= int(root) < 2**32


def seed_ids(seeds: int | Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """The ids that `seeds` stands for, checked: a count means 0 … seeds − 1."""
    if isinstance(seeds, int | np.integer):
        require_seed_count(int(seeds))
        return tuple(range(int(seeds)))
    try:
        ids = tuple(operator.index(seed) for seed in seeds)
    except TypeError:
        raise ValueError(f"seeds = {seeds!r} must be a count or a sequence of ids.") from None
    if not ids:
        raise ValueError("seeds must name at least one seed; give a count of at least 1, or ids.")
    if min(ids) < 0 or max(ids) >= FIRST_STREAM:
        raise ValueError(f"seeds must be between 0 and 2**31 - 1, not {min(ids)} to {max(ids)}.")
    repeated = sorted(seed for seed, count in collections.Counter(ids).items() if count > 1)
    if repeated:
        raise ValueError(f"seeds repeat {short_repr(repeated)}; give each id once.")
    return ids


def require_seed_count(seeds: int) -> None:
    """Refuse a number of seeds that is not positive, or whose last id would be a stream's."""
    if seeds < 1:
        raise ValueError(
            f"seeds = {seeds} must name at least one seed; give a count of at least 1, or ids."
        )
    if seeds > FIRST_STREAM:
        raise ValueError(f"seeds = {seeds} must be at most 2**31: ids are below that.")


def stream_key(key: Key[Array, ""], stream: int) -> Key[Array, ""]:
    """The key of a stream, such as `INIT`."""
    return jax.random.fold_in(key, jnp.uint32(stream))
