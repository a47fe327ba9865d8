"""Algorithms as values: tuples of pure functions that say what is learnt from a rollout.

A new algorithm is one line. To change one function, use `_replace`:
`VPG._replace(policy_loss=my_loss)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from purerl.losses import (
    clipped_squared_error,
    clipped_surrogate,
    score_function_loss,
    squared_error,
)
from purerl.returns import gae, reward_to_go
from purerl.types import Estimate, Hyperparams, Transition


class Algorithm(NamedTuple):
    """A policy-gradient algorithm: hashable, and equal to another made of the same functions.

    - `estimate(rollout, value, next_value, hyper) -> Estimate`, over a rollout `[T, N]`;
    - `policy_loss(log_prob, old_log_prob, advantage, hyper) -> [batch]`, of each transition;
    - `value_loss(value, old_value, value_target, hyper) -> [batch]`, or None where there is no
      baseline: `estimate` then gets None for both values.

    Losses are averaged with the weights of the estimate.
    """

    name: str
    estimate: Callable[..., Estimate]
    policy_loss: Callable[..., Float[Array, " batch"]]
    value_loss: Callable[..., Float[Array, " batch"]] | None

    @property
    def has_baseline(self) -> bool:
        return self.value_loss is not None


def monte_carlo_estimate(
    rollout: Transition,
    value: None,
    next_value: None,
    hyper: Hyperparams,
    *,
    lookahead: int | None = None,
    time_limit: Real[Any, ""] | None = None,
) -> Estimate:
    """Reward-to-go within the rollout, of the steps that can be seen far enough ahead.

    The weight of step t of T, of age e, is 1 where `T − t ≥ min(lookahead, time_limit − e)`, else
    0. It depends on nothing that came after the action: to drop a step for how its episode went on
    would favour short episodes. A truncated episode counts as finished, without a bootstrap.

    **Arguments:** `lookahead` is by default half of the rollout, rounded up; `time_limit` is the
    length at which an episode is truncated, None where there is no limit.
    """
    del value, next_value
    advantage = reward_to_go(
        rollout.reward,
        hyper.discount,
        terminated=rollout.terminated,
        truncated=rollout.truncated,
    )
    length = len(advantage)
    needed = needed_lookahead(length, lookahead)
    if time_limit is not None:
        needed = jnp.minimum(needed, time_limit - rollout.age)
    seen = length - jnp.arange(length)[:, None]
    weight = jnp.broadcast_to(seen >= needed, advantage.shape).astype(advantage.dtype)
    return Estimate(advantage=advantage, value_target=advantage, weight=weight)


def needed_lookahead(length: int, lookahead: int | None) -> int:
    """The steps that must be seen behind a step of a rollout: by default half of it, rounded up."""
    return (length + 1) // 2 if lookahead is None else lookahead


def baseline_estimate(
    rollout: Transition,
    value: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    hyper: Hyperparams,
) -> Estimate:
    """`Â = G − V`: reward-to-go, bootstrapped with V where an episode is cut, minus V."""
    value_target = reward_to_go(
        rollout.reward,
        hyper.discount,
        terminated=rollout.terminated,
        truncated=rollout.truncated,
        next_value=next_value,
    )
    weight = jnp.ones_like(value_target)
    return Estimate(advantage=value_target - value, value_target=value_target, weight=weight)


def gae_estimate(
    rollout: Transition,
    value: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    hyper: Hyperparams,
) -> Estimate:
    """Generalised advantages, and `Â + V` as the baseline's target."""
    advantage = gae(
        rollout.reward,
        value,
        next_value,
        rollout.terminated,
        rollout.truncated,
        hyper.discount,
        hyper.gae_lambda,
    )
    return Estimate(
        advantage=advantage, value_target=advantage + value, weight=jnp.ones_like(advantage)
    )


REINFORCE = Algorithm("reinforce", monte_carlo_estimate, score_function_loss, None)
VPG = Algorithm("vpg", baseline_estimate, score_function_loss, squared_error)
A2C = Algorithm("a2c", gae_estimate, score_function_loss, squared_error)
PPO = Algorithm("ppo", gae_estimate, clipped_surrogate, squared_error)

ALGORITHMS = {algorithm.name: algorithm for algorithm in (REINFORCE, VPG, A2C, PPO)}


def variants() -> list[Algorithm]:
    """Purerl's own algorithms, and those with a baseline with a clipped value loss too."""
    known = [*ALGORITHMS.values()]
    with_baseline = (algorithm for algorithm in known if algorithm.has_baseline)
    return known + [each._replace(value_loss=clipped_squared_error) for each in with_baseline]


def name_of(algorithm: Algorithm) -> str | None:
    """The name of purerl's own algorithm that this is, but for a clipped value loss; or None."""
    return algorithm.name if algorithm in variants() else None
