"""The second half of a step: estimate advantages, then update the policy and the baseline."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree, Shaped

from purerl.config import Config
from purerl.losses import explained_variance, normalize, weighted_mean
from purerl.types import Estimate, Transition


class Learner(eqx.Module):
    """What is learnt: two networks, each with the state of its own optimiser.

    `baseline` and `baseline_opt` are None for an algorithm without a baseline.
    """

    policy: Any
    baseline: Any
    policy_opt: PyTree
    baseline_opt: PyTree


class Batch(eqx.Module):
    """The rows of a rollout that a loss is a mean over, and what was made of them."""

    obs: Float[Array, "batch *obs"]
    action: Shaped[Array, "batch *action"]
    log_prob: Float[Array, " batch"]
    value: Float[Array, " batch"]
    advantage: Float[Array, " batch"]
    value_target: Float[Array, " batch"]
    weight: Float[Array, " batch"]


def optimizers(config: Config) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The policy's and the baseline's optimiser, rebuilt from the traced hyperparameters."""
    hyper = config.hyper
    return (
        config.optimizer(hyper.policy_learning_rate, hyper.max_grad_norm),
        config.optimizer(hyper.baseline_learning_rate, hyper.max_grad_norm),
    )


def update(
    learner: Learner, rollout: Transition, config: Config
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """Learn from one rollout: one step of the policy, `baseline_epochs` of the baseline.

    **Returns:** the new learner, and its share of `Metrics` by name. Where every transition has
    weight 0 the learner stays as it was and its metrics are NaN.
    """
    value, next_value = values(learner.baseline, rollout)
    estimate = jax.lax.stop_gradient(
        config.algorithm.estimate(rollout, value, next_value, config.hyper)
    )
    batch = make_batch(rollout, value, estimate, config)
    policy, policy_opt, policy_report = update_policy(learner, batch, config)
    baseline, baseline_opt, baseline_report = update_baseline(learner, batch, config)
    updated = Learner(policy, baseline, policy_opt, baseline_opt)

    anything = jnp.any(batch.weight > 0)
    learner = jax.tree.map(lambda new, old: jnp.where(anything, new, old), updated, learner)
    report = {
        name: jnp.where(anything, value, jnp.nan)
        for name, value in (policy_report | baseline_report).items()
    }
    return learner, report


def values(
    baseline: Any, rollout: Transition
) -> tuple[Float[Array, "T N"], Float[Array, "T N"]] | tuple[None, None]:
    """V of each observation of a rollout and of its true successor; None without a baseline."""
    if baseline is None:
        return None, None
    of_rollout = jax.vmap(jax.vmap(baseline))
    return of_rollout(rollout.obs), of_rollout(rollout.next_obs)


def make_batch(
    rollout: Transition, value: Float[Array, "T N"] | None, estimate: Estimate, config: Config
) -> Batch:
    """Lay a rollout `[T, N]` out as rows `[T · N]`, its advantages normalised if so configured."""
    weight = estimate.weight
    # NaN behind a weight of 0 would pass into the gradient: 0 · NaN is NaN there too.
    advantage = jnp.where(weight > 0, estimate.advantage, 0)
    value_target = jnp.where(weight > 0, estimate.value_target, 0)
    if config.normalize_advantage:
        advantage = normalize(advantage, weight)

    def rows(x):
        return x.reshape(-1, *x.shape[2:])

    return Batch(
        obs=rows(rollout.obs),
        action=rows(rollout.action),
        log_prob=rows(rollout.log_prob),
        value=rows(jnp.zeros_like(advantage) if value is None else value),
        advantage=rows(advantage),
        value_target=rows(value_target),
        weight=rows(weight),
    )


def update_policy(learner: Learner, batch: Batch, config: Config):
    """One gradient step of the policy on its loss less the entropy bonus."""

    def loss(policy):
        return policy_objective(policy, batch, config)

    gradient, report = eqx.filter_grad(loss, has_aux=True)(learner.policy)
    optimizer, _ = optimizers(config)
    policy, policy_opt = descend(optimizer, gradient, learner.policy_opt, learner.policy)
    return policy, policy_opt, report | {"policy_grad_norm": optax.tree.norm(gradient)}


def policy_objective(
    policy: Any, batch: Batch, config: Config
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """`policy_loss − entropy_coef · entropy`, and the policy's share of `Metrics`."""

    def one(obs, action):
        distribution = policy(obs)
        return distribution.log_prob(action), distribution.entropy()

    log_prob, entropy = jax.vmap(one)(batch.obs, batch.action)
    policy_loss = config.algorithm.policy_loss(
        log_prob, batch.log_prob, batch.advantage, batch.weight, config.hyper
    )
    entropy = weighted_mean(entropy, batch.weight)
    log_ratio = jax.lax.stop_gradient(log_prob) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.abs(ratio - 1) > config.hyper.clip_eps
    report = {
        "policy_loss": policy_loss,
        "entropy": entropy,
        "approx_kl": weighted_mean(ratio - 1 - log_ratio, batch.weight),
        "clip_fraction": weighted_mean(clipped.astype(ratio.dtype), batch.weight),
    }
    return policy_loss - config.hyper.entropy_coef * entropy, report


def update_baseline(learner: Learner, batch: Batch, config: Config):
    """`baseline_epochs` full-batch gradient steps of the baseline; nothing without a baseline."""
    names = ("value_loss", "baseline_grad_norm", "explained_variance")
    if learner.baseline is None:
        return None, None, dict.fromkeys(names, jnp.nan)
    _, optimizer = optimizers(config)
    parameters, rest = eqx.partition(learner.baseline, eqx.is_inexact_array)

    def loss(parameters):
        return baseline_objective(eqx.combine(parameters, rest), batch, config)

    def epoch(carry, _):
        parameters, opt = carry
        value_loss, gradient = jax.value_and_grad(loss)(parameters)
        parameters, opt = descend(optimizer, gradient, opt, parameters)
        return (parameters, opt), (value_loss, optax.tree.norm(gradient))

    (parameters, opt), (value_loss, grad_norm) = jax.lax.scan(
        epoch, (parameters, learner.baseline_opt), length=config.baseline_epochs
    )
    fit = explained_variance(batch.value, batch.value_target, batch.weight)
    report = dict(zip(names, (value_loss.mean(), grad_norm.mean(), fit), strict=True))
    return eqx.combine(parameters, rest), opt, report


def baseline_objective(baseline: Any, batch: Batch, config: Config) -> Float[Array, ""]:
    """The value loss of a baseline on a batch."""
    assert config.algorithm.value_loss is not None
    return config.algorithm.value_loss(
        jax.vmap(baseline)(batch.obs), batch.value, batch.value_target, batch.weight, config.hyper
    )


def descend(
    optimizer: optax.GradientTransformation, gradient: PyTree, opt: PyTree, module: Any
) -> tuple[Any, PyTree]:
    """One step of an optimiser on the inexact arrays of a module."""
    parameters = eqx.filter(module, eqx.is_inexact_array)
    step, opt = optimizer.update(gradient, opt, parameters)
    return eqx.apply_updates(module, step), opt
