"""Reward-to-go and generalised advantages: one backward recurrence, two uses of it.

After an episode's end the environment resets: the next step belongs to another episode, and nothing
of it may count. How an episode's end is treated (`terminated` wins where both flags are set):

| the step is followed by          | bootstrap                | the recursion |
|----------------------------------|--------------------------|---------------|
| termination                      | 0                        | is cut        |
| truncation, or the rollout's end | discount · next_value    | is cut        |
| the next step of its episode     | (none: the next step is) | goes on       |
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from purerl.compute.platforms import linear_recurrence


def reward_to_go(
    reward: Real[Array, "T *batch"],
    discount: Float[Any, ""] | float,
    *,
    terminated: Bool[Array, "T *batch"] | None = None,
    truncated: Bool[Array, "T *batch"] | None = None,
    next_value: Real[Array, "T *batch"] | None = None,
) -> Float[Array, "T *batch"]:
    """The discounted sum of rewards from each step to the end of its episode.

    `G_t = reward_t + discount · G_{t+1}`, and where an episode or the rollout ends after step t,
    `G_t = reward_t + discount · next_value_t`. Behind a termination nothing is added, even where
    `next_value` is NaN. Without flags the input is one whole episode. Without `next_value` nothing
    is added at a cut.

    **Arguments:** `next_value` is V at the true successor of each step, before any auto-reset. It
    is read only where an episode is truncated and on the last step.

    **Raises:** `ValueError` where a shape is not that of `reward`.

    Williams (1992), "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning".
    """
    reward = jnp.asarray(reward)
    reward = reward.astype(jnp.promote_types(reward.dtype, jnp.float32))
    never = jnp.zeros(reward.shape, bool)
    terminated = never if terminated is None else jnp.asarray(terminated)
    truncated = never if truncated is None else jnp.asarray(truncated)
    next_value = jnp.zeros_like(reward) if next_value is None else next_value.astype(reward.dtype)
    _same_shapes(reward=reward, terminated=terminated, truncated=truncated, next_value=next_value)
    discount = jnp.asarray(discount, reward.dtype)

    is_cut = (terminated | truncated).at[-1].set(True)
    bootstrap = jnp.where(is_cut & ~terminated, next_value, 0)
    term = reward + discount * bootstrap
    return linear_recurrence(term, jnp.where(is_cut, 0, discount), reverse=True)


def gae(
    reward: Real[Array, "T *batch"],
    value: Float[Array, "T *batch"],
    next_value: Float[Array, "T *batch"],
    terminated: Bool[Array, "T *batch"],
    truncated: Bool[Array, "T *batch"],
    discount: Float[Any, ""] | float,
    gae_lambda: Float[Any, ""] | float,
) -> Float[Array, "T *batch"]:
    """The generalised advantage: a sum of discounted TD errors, cut where an episode ends.

    `Â_t = td_error_t + discount · λ · Â_{t+1}` with `td_error_t = reward_t + discount ·
    next_value_t − value_t`, where `next_value` counts as 0 behind a termination. With λ = 1,
    `Â + value` is `reward_to_go`. With λ = 0, `Â` is the TD error.

    **Arguments:** `next_value` is V at the true successor of each step, before any auto-reset.

    **Raises:** `ValueError` where a shape is not that of `reward`.

    Schulman et al. (2016), arXiv:1506.02438.
    """
    _same_shapes(
        reward=reward,
        value=value,
        next_value=next_value,
        terminated=terminated,
        truncated=truncated,
    )
    reward = reward.astype(jnp.promote_types(reward.dtype, jnp.float32))
    discount = jnp.asarray(discount, reward.dtype)
    gae_lambda = jnp.asarray(gae_lambda, reward.dtype)
    td_error = reward + discount * jnp.where(terminated, 0, next_value) - value
    decay = jnp.where(terminated | truncated, 0, discount * gae_lambda)
    return linear_recurrence(td_error, decay, reverse=True)


def _same_shapes(**arrays: Array) -> None:
    expected = arrays["reward"].shape
    if not expected or expected[0] == 0:
        raise ValueError(f"reward has shape {expected}; give [T, ...] with at least one step.")
    for name, array in arrays.items():
        if array.shape != expected:
            raise ValueError(f"{name} has shape {array.shape}, but reward has {expected}.")
