"""Comparing pytrees."""

import jax
import jax.numpy as jnp
import numpy as np


def key_bits(tree):
    """A pytree with its typed keys as plain integers."""

    def bits(x):
        is_key = jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(bits, tree)


def assert_bitwise_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, key_bits(actual), key_bits(expected))
