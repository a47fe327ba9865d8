"""The random streams of one seed, derived from its key by name."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

# Numbers that are folded into a key. Seed ids and updates are int32 and counted from 0, and splits
# are shorter: none comes this far. So any key may be given to anything (the root's, a seed's, that
# of a training state), and what two parts of the library draw is never the same.
FIRST = 2**31
INIT, TRAIN, EVALUATE = range(FIRST, FIRST + 3)


def stream(key: Key[Array, ""], number: int) -> Key[Array, ""]:
    """The stream of a key that has one of the numbers above."""
    return jax.random.fold_in(key, jnp.uint32(number))
