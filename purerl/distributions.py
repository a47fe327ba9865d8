"""Distributions over actions: small pytrees with `sample`, `log_prob`, `entropy` and `mode`.

Written for one action; `vmap` maps them over many. Actions from a box are in units of that box: no
distribution knows its bounds.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

NODES = 16  # of the quadrature for a squashed Gaussian's entropy
FEW = 8  # up to so many actions are compared one by one
EDGE = 1 - 1e-6  # the largest tanh that is inverted


class Categorical(eqx.Module):
    """A choice among n actions with probabilities `softmax(logits)`; −inf rules an action out."""

    logits: Float[Array, " n"]

    def sample(self, key: Key[Array, ""]) -> Int[Array, ""]:
        """Draw an action."""
        return _argmax(self.logits + jax.random.gumbel(key, self.logits.shape))

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
        """The most likely action; the first where several are."""
        return _argmax(self.logits)


def _argmax(x: Float[Array, " n"]) -> Int[Array, ""]:
    """The first index of the largest number.

    A few are compared one by one: that fuses with the operations around, and saves a kernel a step.
    """
    if x.shape[0] > FEW:
        return jnp.argmax(x).astype(jnp.int32)
    index, largest = jnp.int32(0), x[0]
    for i in range(1, x.shape[0]):
        # Not >: a NaN is the largest, as for jnp.argmax.
        larger = ~(x[i] <= largest) & ~jnp.isnan(largest)
        index, largest = jnp.where(larger, i, index), jnp.where(larger, x[i], largest)
    return index


class DiagonalGaussian(eqx.Module):
    """Independent normals, one for each component of an action: `loc + scale · ε`."""

    loc: Float[Array, "*action"]
    scale: Float[Array, "*action"]

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*action"]:
        """Draw an action. It may lie beyond ±1, the environment's bounds."""
        return self.loc + self.scale * jax.random.normal(key, self.loc.shape)

    def log_prob(self, action: Float[Array, "*action"]) -> Float[Array, ""]:
        """The log-density, `Σ −½ ((a − loc) / scale)² − log scale − ½ log 2π`."""
        return jnp.sum(jax.scipy.stats.norm.logpdf(action, self.loc, self.scale))

    def entropy(self) -> Float[Array, ""]:
        """`Σ log scale + ½ log 2πe`, in nats."""
        return jnp.sum(jnp.log(self.scale) + 0.5 * np.log(2 * np.pi * np.e))

    def mode(self) -> Float[Array, "*action"]:
        """The centre."""
        return self.loc


class SquashedGaussian(eqx.Module):
    """A diagonal Gaussian that tanh squeezes between −1 and 1, the bounds in units of their box.

    `action = tanh(u)`, with `u = loc + scale · ε`. Haarnoja et al. (2018), arXiv:1812.05905,
    appendix C.
    """

    loc: Float[Array, "*action"]
    scale: Float[Array, "*action"]

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*action"]:
        """Draw an action, between −1 and 1."""
        return jnp.tanh(self.loc + self.scale * jax.random.normal(key, self.loc.shape))

    def log_prob(self, action: Float[Array, "*action"]) -> Float[Array, ""]:
        """`Σ log N(u; loc, scale) − log da/du`, the density of the squashed action.

        An action at a bound, where tanh has rounded to ±1, counts as one just inside it.
        """
        u = jnp.arctanh(jnp.clip(action, -EDGE, EDGE))
        log_density = jax.scipy.stats.norm.logpdf(u, self.loc, self.scale)
        return jnp.sum(log_density - _log_slope(u))

    def entropy(self) -> Float[Array, ""]:
        """The Gaussian's entropy plus `Σ E[log da/du]`, by Gauss–Hermite quadrature, in nats."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        weights = weights / weights.sum()
        u = self.loc + self.scale * nodes.astype(self.loc.dtype).reshape(-1, *[1] * self.loc.ndim)
        log_slope = jnp.tensordot(weights.astype(self.loc.dtype), _log_slope(u), 1)
        return jnp.sum(jnp.log(self.scale) + 0.5 * np.log(2 * np.pi * np.e) + log_slope)

    def mode(self) -> Float[Array, "*action"]:
        """The squashed centre: the median of each component."""
        return jnp.tanh(self.loc)


def _log_slope(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log dtanh(u)/du = log(1 − tanh²u)`, in a form that does not round to −inf."""
    return 2 * (np.log(2) - u - jax.nn.softplus(-2 * u))
