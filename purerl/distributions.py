"""Distributions over actions: small pytrees with `sample`, `log_prob`, `entropy` and `mode`.

Written for one action; `vmap` maps them over many. Actions from a box are in units of that box: no
distribution knows its bounds. One that squeezes actions between them samples, and takes the density
of, what is squeezed; `squashed` brings it into units.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

FEW = 8  # up to so many actions are compared one by one
# Normals of mean 0 whose mixture is the logistic distribution of scale ½, to 2e-9 in probability:
# their weights, and half of 1 / their standard deviations. Monahan and Stefanski (1992), "Normal
# scale mixture approximations to F*(z) and computation of the logistic-normal integral", k = 8.
LOGISTIC_WEIGHTS = (
    *(0.003246343272134, 0.051517477033972, 0.195077912673858, 0.315569823632818),
    *(0.274149576158423, 0.131076880695470, 0.027912418727972, 0.001449567805354),
)
LOGISTIC_PRECISIONS = (
    *(1.365340806296348, 1.059523971016916, 0.830791313765644, 0.650732166639391),
    *(0.508135425366489, 0.396313345166341, 0.308904252267995, 0.238212616409306),
)


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

    What it samples is `u = loc + scale · ε`, before the squash: `tanh(u)` rounds to a bound long
    before u ends, so that u could not be found again. `squash` makes an action of it. Haarnoja et
    al. (2018), arXiv:1812.05905, appendix C.
    """

    loc: Float[Array, "*action"]
    scale: Float[Array, "*action"]

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*action"]:
        """Draw an action, before the squash."""
        return self.loc + self.scale * jax.random.normal(key, self.loc.shape)

    def squash(self, action: Float[Array, "*action"]) -> Float[Array, "*action"]:
        """`tanh(u)`: the action in units of its box, between −1 and 1."""
        return jnp.tanh(action)

    def log_prob(self, action: Float[Array, "*action"]) -> Float[Array, ""]:
        """`Σ log N(u; loc, scale) − log dtanh(u)/du`: the density of `tanh(u)`, by u."""
        log_density = jax.scipy.stats.norm.logpdf(action, self.loc, self.scale)
        # log(1 − tanh²u), in a form that does not round to −inf.
        log_slope = 2 * (np.log(2) - action - jax.nn.softplus(-2 * action))
        return jnp.sum(log_density - log_slope)

    def entropy(self) -> Float[Array, ""]:
        """`Σ log scale + ½ log 2πe − 2 E[log cosh u]`, that of `tanh(u)`, in nats, to about 1e-8.

        `log cosh u + log 2` is `E|u + L|` for a logistic L of scale ½, as both have the second
        derivative `1 / cosh²u`. L is close to a mixture of normals of weights w_k and standard
        deviations s_k, so that `E[log cosh u] = Σ_k w_k E|N(loc, scale² + s_k²)| − log 2`.
        """
        distance = 0.0
        # One by one, not as an axis: XLA for CPUs would take a sum over it element by element.
        for weight, precision in zip(LOGISTIC_WEIGHTS, LOGISTIC_PRECISIONS, strict=True):
            width = jnp.sqrt(self.scale**2 + (0.5 / precision) ** 2)
            distance += weight * _mean_absolute(self.loc, width)
        of_gaussian = jnp.log(self.scale) + 0.5 * np.log(2 * np.pi * np.e)
        return jnp.sum(of_gaussian + 2 * np.log(2) - 2 * distance)

    def mode(self) -> Float[Array, "*action"]:
        """The centre, before the squash: squashed, it is the median of each component."""
        return self.loc


@jax.custom_jvp
def _mean_absolute(
    loc: Float[Array, "*action"], scale: Float[Array, "*action"]
) -> Float[Array, "*action"]:
    """`E|N(loc, scale²)|`, the mean of a folded normal."""
    by_loc, by_scale = _mean_absolute_slopes(loc, scale)
    return loc * by_loc + scale * by_scale


@_mean_absolute.defjvp
def _mean_absolute_jvp(primals: Any, tangents: Any) -> Any:
    """Derived, it would be more than twice as long: most of its terms cancel."""
    (loc, scale), (loc_tangent, scale_tangent) = primals, tangents
    by_loc, by_scale = _mean_absolute_slopes(loc, scale)
    mean = loc * by_loc + scale * by_scale
    return mean, loc_tangent * by_loc + scale_tangent * by_scale


def _mean_absolute_slopes(
    loc: Float[Array, "*action"], scale: Float[Array, "*action"]
) -> tuple[Float[Array, "*action"], Float[Array, "*action"]]:
    """Its derivatives by `loc` and `scale`: `erf(z / √2)` and `√(2/π) exp(−z²/2)`, of a z-score."""
    z = loc / scale
    return jax.lax.erf(z * math.sqrt(0.5)), math.sqrt(2 / math.pi) * jnp.exp(-0.5 * z**2)


def squashed(distribution: Any, action: Array) -> Array:
    """A distribution's action in units of the action space: squashed, where it has `squash`."""
    squash = getattr(distribution, "squash", None)
    return action if squash is None else squash(action)
