"""Many seeds: their keys, and training of as many agents, with one config or with several."""

import collections
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from purerl.checks import one_line

# Numbers that are folded into a key. Seed ids and updates are int32 and counted from 0, and splits
# are shorter: none comes this far. So any key may be given to anything (the root's, a seed's, that
# of a training state), and what two parts of the library draw is never the same.
FIRST = 2**31
INIT, TRAIN, EVALUATE = range(FIRST, FIRST + 3)


def seed_keys(root: int | Array, seeds: int | Sequence[int] | np.ndarray) -> Key[Array, " seeds"]:
    """The keys of many seeds: `fold_in(root, id)` for each id.

    What a seed draws depends on the root and its id alone: seed 5 is the same agent among 8 seeds,
    among 64, and by itself.

    **Arguments:** `root` is an int or a typed key; `seeds` a count, for the ids 0 … seeds − 1, or
    the ids themselves.

    **Raises:** `ValueError` where ids repeat, are negative, or there are none.
    """
    ids = seed_ids(seeds)
    root_key = jax.random.key(root) if is_root(root) else root
    is_key = isinstance(root_key, jax.Array)
    if not is_key or not jnp.issubdtype(root_key.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"root = {one_line(root)} must be an int from 0 to 2**32 - 1 or a typed key, "
            f"jax.random.key(0)."
        )
    return jax.vmap(jax.random.fold_in, (None, 0))(root_key, jnp.asarray(ids, jnp.uint32))


def is_root(root: Any) -> bool:
    """Whether a value is a number that makes a root key of its own."""
    return isinstance(root, int | np.integer) and 0 <= int(root) < 2**32


def seed_ids(seeds: int | Sequence[int] | np.ndarray) -> tuple[int, ...]:
    """The ids that `seeds` stands for, checked: a count means 0 … seeds − 1."""
    try:
        counted = range(seeds) if isinstance(seeds, int | np.integer) else seeds
        ids = tuple(operator.index(seed) for seed in counted)
    except TypeError:
        raise ValueError(f"seeds = {seeds!r} must be a count or a sequence of ids.") from None
    if not ids:
        raise ValueError("seeds must name at least one seed; give a count of at least 1, or ids.")
    if min(ids) < 0 or max(ids) >= FIRST:
        raise ValueError(f"seeds must be between 0 and 2**31 - 1, not {min(ids)} to {max(ids)}.")
    repeated = sorted(seed for seed, count in collections.Counter(ids).items() if count > 1)
    if repeated:
        raise ValueError(f"seeds repeat {one_line(repeated)}; give each id once.")
    return ids


def stream(key: Key[Array, ""], number: int) -> Key[Array, ""]:
    """The stream of a key that has one of the numbers above."""
    return jax.random.fold_in(key, jnp.uint32(number))
