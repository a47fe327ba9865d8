"""Losses of transitions, and the weighted means over them. Advantages and targets are constants.

A policy loss has the signature of `score_function_loss`, a value loss that of `squared_error`. An
agent follows the gradient of their weighted means.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from purerl.compute.derivatives import sqrt
from purerl.types import Hyperparams


def weighted_mean(x: Float[Array, "..."], weight: Float[Array, "..."]) -> Float[Array, ""]:
    """`Σ weight · x / Σ weight`: blind to x where its weight is 0; 0 where every weight is 0."""
    total_weight = jnp.sum(weight)
    return weighted_sum(x, weight) / jnp.where(total_weight > 0, total_weight, 1)


def weighted_sum(x: Float[Array, "..."], weight: Float[Array, "..."]) -> Float[Array, ""]:
    """`Σ weight · x`: blind to x where its weight is 0."""
    # where, not the product alone: 0 · NaN is NaN.
    return jnp.sum(jnp.where(weight > 0, weight * x, 0))


def normalize(x: Float[Array, "..."], weight: Float[Array, "..."]) -> Float[Array, "..."]:
    """`(x − mean) / (std + 1e-8)`, with the weighted mean and standard deviation of one agent."""
    centered, variance = _centered(x, weight)
    return centered / (sqrt(variance) + 1e-8)


def _centered(
    x: Float[Array, "..."], weight: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, ""]]:
    """`x − mean`, and its variance. The mean is subtracted twice: once leaves a rounding error.

    Of a constant, that error is all that is left, and normalising would make it ±1.
    """
    x = x - weighted_mean(x, weight)
    mean_error = weighted_mean(x, weight)
    # x is about 0 now: the difference of squares loses no digits.
    variance = weighted_mean(x**2, weight) - mean_error**2
    return x - mean_error, jnp.maximum(variance, 0)


def score_function_loss(
    log_prob: Float[Array, " batch"],
    old_log_prob: Float[Array, " batch"],
    advantage: Float[Array, " batch"],
    hyper: Hyperparams,
) -> Float[Array, " batch"]:
    """`−log π(a|s) · Â`: the gradient of its mean is the policy gradient's estimate, negated.

    Williams (1992), "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning".
    """
    del old_log_prob, hyper
    return -log_prob * advantage


def clipped_surrogate(
    log_prob: Float[Array, " batch"],
    old_log_prob: Float[Array, " batch"],
    advantage: Float[Array, " batch"],
    hyper: Hyperparams,
) -> Float[Array, " batch"]:
    """`−min(r · Â, clip(r, 1 − ε, 1 + ε) · Â)` with `r = π(a|s) / π_old(a|s)` and ε `clip_eps`.

    Schulman et al. (2017), "Proximal policy optimization algorithms", arXiv:1707.06347.
    """
    ratio = jnp.exp(log_prob - old_log_prob)
    clipped = jnp.clip(ratio, 1 - hyper.clip_eps, 1 + hyper.clip_eps)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def squared_error(
    value: Float[Array, " batch"],
    old_value: Float[Array, " batch"],
    value_target: Float[Array, " batch"],
    hyper: Hyperparams,
) -> Float[Array, " batch"]:
    """`(V(s) − target)²`."""
    del old_value, hyper
    return (value - value_target) ** 2


def clipped_squared_error(
    value: Float[Array, " batch"],
    old_value: Float[Array, " batch"],
    value_target: Float[Array, " batch"],
    hyper: Hyperparams,
) -> Float[Array, " batch"]:
    """`max((V − target)², (V_old + clip(V − V_old, −ε, ε) − target)²)`, ε being `clip_eps`.

    It is the larger of the error of V and that of V kept within ε of `old_value`.
    """
    clipped = old_value + jnp.clip(value - old_value, -hyper.clip_eps, hyper.clip_eps)
    return jnp.maximum((value - value_target) ** 2, (clipped - value_target) ** 2)


def explained_variance(
    value: Float[Array, "..."], value_target: Float[Array, "..."], weight: Float[Array, "..."]
) -> Float[Array, ""]:
    """`1 − Var(target − V) / Var(target)`: 1 for a perfect baseline, 0 for a constant one.

    NaN where the targets do not vary by more than the rounding error of their sums.
    """
    _, variance = _centered(value_target, weight)
    _, unexplained = _centered(value_target - value, weight)
    rounding = jnp.finfo(value_target.dtype).eps ** 2 * weighted_mean(value_target**2, weight)
    varies = variance > rounding
    return jnp.where(varies, 1 - unexplained / jnp.where(varies, variance, 1), jnp.nan)
