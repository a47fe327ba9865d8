"""Distributions over actions: small pytrees with `sample`, `log_prob`, `entropy` and `mode`.

Written for one action; `vmap` maps them over many.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


class Categorical(eqx.Module):
    """A choice among n actions with probabilities `softmax(logits)`; −inf rules an action out."""

    logits: Float[Array, " n"]

    def sample(self, key: Key[Array, ""]) -> Int[Array, ""]:
        """Draw an action."""
        return jax.random.categorical(key, self.logits)

    def log_prob(self, action: Int[Array, ""]) -> Float[Array, ""]:
        """`log softmax(logits)[action]`."""
        log_probs = jax.nn.log_softmax(self.logits)
        # Not log_probs[action]: the gradient of a gather is a scatter, which on a GPU adds up in
        # no fixed order, so that equal runs would differ.
        chosen = jnp.arange(self.logits.shape[0], dtype=action.dtype) == action
        return jnp.sum(jnp.where(chosen, log_probs, 0))

    def entropy(self) -> Float[Array, ""]:
        """`−Σ p log p`, in nats."""
        log_probs = jax.nn.log_softmax(self.logits)
        possible = log_probs != -jnp.inf
        log_probs = jnp.where(possible, log_probs, 0)
        return -jnp.sum(jnp.where(possible, jnp.exp(log_probs) * log_probs, 0))

    def mode(self) -> Int[Array, ""]:
        """The most likely action; the first of several."""
        return jnp.argmax(self.logits).astype(jnp.int32)
