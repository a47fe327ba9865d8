"""Losses of one agent: weighted means over its transitions. Advantages and targets are constants.

A policy loss has the signature of `score_function_loss`, a value loss that of `squared_error`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from purerl.types import Hyperparams


def weighted_mean(x: Float[Array, "..."], weight: Float[Array, "..."]) -> Float[Array, ""]:
    """`Σ weight · x / Σ weight`: blind to x where its weight is 0; 0 where every weight is 0."""
    # where, not the product alone: 0 · NaN is NaN.
    total = jnp.sum(jnp.where(weight > 0, weight * x, 0))
    mass = jnp.sum(weight)
    return total / jnp.where(mass > 0, mass, 1)


def normalize(x: Float[Array, "..."], weight: Float[Array, "..."]) -> Float[Array, "..."]:
    """`(x − mean) / (std + 1e-8)`, with the weighted mean and standard deviation of one agent."""
    x = _centered(x, weight)
    return x / (jnp.sqrt(weighted_mean(x**2, weight)) + 1e-8)


def _centered(x: Float[Array, "..."], weight: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x − mean`, the mean taken out twice: once leaves a rounding error behind.

    Of a constant, that error is all there is, and dividing by its own size would make it ±1.
    """
    x = x - weighted_mean(x, weight)
    return x - weighted_mean(x, weight)


def score_function_loss(
    log_prob: Float[Array, " batch"],
    old_log_prob: Float[Array, " batch"],
    advantage: Float[Array, " batch"],
    weight: Float[Array, " batch"],
    hyper: Hyperparams,
) -> Float[Array, ""]:
    """`−mean(log π(a|s) · Â)`: its gradient is the policy gradient's estimate, negated.

    Williams (1992), "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning".
    """
    del old_log_prob, hyper
    return -weighted_mean(log_prob * advantage, weight)


def clipped_surrogate(
    log_prob: Float[Array, " batch"],
    old_log_prob: Float[Array, " batch"],
    advantage: Float[Array, " batch"],
    weight: Float[Array, " batch"],
    hyper: Hyperparams,
) -> Float[Array, ""]:
    """`−mean(min(r · Â, clip(r, 1 − ε, 1 + ε) · Â))` with `r = π(a|s) / π_old(a|s)`, ε `clip_eps`.

    Schulman et al. (2017), "Proximal policy optimization algorithms", arXiv:1707.06347.
    """
    ratio = jnp.exp(log_prob - old_log_prob)
    clipped = jnp.clip(ratio, 1 - hyper.clip_eps, 1 + hyper.clip_eps)
    return -weighted_mean(jnp.minimum(ratio * advantage, clipped * advantage), weight)


def squared_error(
    value: Float[Array, " batch"],
    old_value: Float[Array, " batch"],
    value_target: Float[Array, " batch"],
    weight: Float[Array, " batch"],
    hyper: Hyperparams,
) -> Float[Array, ""]:
    """`mean((V(s) − target)²)`."""
    del old_value, hyper
    return weighted_mean((value - value_target) ** 2, weight)


def clipped_squared_error(
    value: Float[Array, " batch"],
    old_value: Float[Array, " batch"],
    value_target: Float[Array, " batch"],
    weight: Float[Array, " batch"],
    hyper: Hyperparams,
) -> Float[Array, ""]:
    """`mean(max((V − target)², (V_old + clip(V − V_old, −ε, ε) − target)²))`, ε being `clip_eps`.

    The larger of two errors: V's, and that of V kept within ε of what it was for the rollout.
    """
    near = old_value + jnp.clip(value - old_value, -hyper.clip_eps, hyper.clip_eps)
    error = jnp.maximum((value - value_target) ** 2, (near - value_target) ** 2)
    return weighted_mean(error, weight)


def explained_variance(
    value: Float[Array, "..."], value_target: Float[Array, "..."], weight: Float[Array, "..."]
) -> Float[Array, ""]:
    """`1 − Var(target − V) / Var(target)`: 1 for a perfect baseline, 0 for a constant one.

    NaN where the targets do not vary by more than the rounding error of their sums.
    """

    def variance(x):
        return weighted_mean(_centered(x, weight) ** 2, weight)

    spread = variance(value_target)
    rounding = jnp.finfo(value_target.dtype).eps ** 2 * weighted_mean(value_target**2, weight)
    return jnp.where(spread > rounding, 1 - variance(value_target - value) / spread, jnp.nan)
