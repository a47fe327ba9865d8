"""The second half of a step: estimate advantages, then update the policy and the baseline."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from purerl.compute.mesh import ALONE, Layout
from purerl.compute.rows import (
    flatten_rows,
    map_rows,
    map_rows_where,
    shuffled_rows,
    unflatten_rows,
)
from purerl.config.config import Config
from purerl.fit import Batch, FitSettings, Report, RowReport, fit
from purerl.losses import explained_variance, normalize
from purerl.networks.network import update_obs_stats
from purerl.types import Baseline, Estimate, Policy, Transition


class Learner(eqx.Module):
    """What is learnt: two networks, each with the state of its own optimiser.

    `baseline` and `baseline_opt_state` are None for an algorithm without a baseline.
    """

    policy: Any
    baseline: Any
    policy_opt_state: PyTree
    baseline_opt_state: PyTree


def update(
    key: Key[Array, ""],
    learner: Learner,
    rollout: Transition,
    config: Config,
    layout: Layout = ALONE,
) -> tuple[Learner, Report]:
    """Learn from one rollout: `epochs` passes of the policy, `baseline_epochs` of the baseline.

    Each pass is over `num_minibatches` minibatches, shuffled anew. The two networks share nothing,
    so the order of their updates makes no difference.

    **Returns:** the new learner, and its share of `Metrics` by name. A minibatch in which every
    transition has weight 0 changes nothing. If all minibatches are such, the metrics are NaN.
    """
    value, next_value = None, None
    if learner.baseline is not None:
        value, next_value = rollout_values(learner.baseline, rollout, layout)
    estimate = config.estimate(rollout, value, next_value, config.hyper)
    batch = make_batch(rollout, value, estimate, layout)
    batch_and_rows = batch, minibatch_rows(key, config, layout)
    policy, policy_opt_state, policy_report = update_policy(
        learner, *batch_and_rows, config, layout
    )
    baseline, baseline_opt_state, baseline_report = update_baseline(
        learner, *batch_and_rows, config, layout
    )
    learner = Learner(policy, baseline, policy_opt_state, baseline_opt_state)
    return update_obs_stats(learner, rollout.obs), policy_report | baseline_report


def rollout_values(
    baseline: Baseline, rollout: Transition, layout: Layout = ALONE
) -> tuple[Float[Array, "T N"], Float[Array, "T N"]]:
    """V of each observation of a rollout, and of its true successor.

    The successor is the next observation, except at a truncation and in the last step. Behind a
    termination its value is never used, and means nothing.
    """
    length, num_envs = rollout.reward.shape

    def flatten(x):
        return flatten_rows(x, layout)

    def unflatten(rows):
        return unflatten_rows(rows, (length, num_envs), layout)

    value = unflatten(map_rows(baseline, flatten(rollout.obs), layout))
    last_value = jax.vmap(baseline)(rollout.next_obs[-1])
    shifted = jnp.concatenate([value[1:], last_value[None]])
    is_last = jnp.arange(length)[:, None] == length - 1
    is_cut = rollout.truncated & ~rollout.terminated & ~is_last
    next_value = map_rows_where(
        baseline, flatten(is_cut), flatten(rollout.next_obs), flatten(shifted), layout
    )
    return value, unflatten(next_value)


def make_batch(
    rollout: Transition,
    value: Float[Array, "T N"] | None,
    estimate: Estimate,
    layout: Layout = ALONE,
) -> Batch:
    """Lay out a rollout `[T, N]`, its values and its estimate as rows."""
    weight = estimate.weight
    # A NaN with weight 0 would pass into the gradient: 0 · NaN is NaN there too.
    advantage = jnp.where(weight > 0, estimate.advantage, 0)
    value_target = jnp.where(weight > 0, estimate.value_target, 0)

    rows = {
        "obs": rollout.obs,
        "action": rollout.action,
        "log_prob": rollout.log_prob,
        "value": jnp.zeros_like(advantage) if value is None else value,
        "advantage": advantage,
        "value_target": value_target,
        "weight": weight,
    }
    return Batch(**flatten_rows(rows, layout))


def minibatch_rows(
    key: Key[Array, ""], config: Config, layout: Layout = ALONE
) -> Int[Array, "epochs steps rows"] | None:
    """The rows of each minibatch: one permutation of the batch for each epoch, cut into pieces.

    None where an epoch is one full batch, whose order makes no difference.
    """
    if config.num_minibatches == 1:
        return None
    epochs = max(config.epochs, config.baseline_epochs)
    rows = shuffled_rows(key, epochs, (config.rollout_length, config.num_envs), layout)
    return rows.reshape(epochs, config.num_minibatches, -1)


def update_policy(
    learner: Learner,
    batch: Batch,
    rows: Int[Array, "epochs steps rows"] | None,
    config: Config,
    layout: Layout = ALONE,
) -> tuple[Any, PyTree, Report]:
    """`epochs` passes of the policy, up to the minibatch in which the KL exceeds `target_kl`."""

    def keep_going(report):
        # Not <=: a KL of NaN goes on, so that the agent fails visibly.
        return ~(report["approx_kl"] > config.hyper.target_kl)

    settings = FitSettings(
        objective=functools.partial(policy_objective, config=config),
        optimizer=config.optimizers.policy,
        loss=lambda report: report["policy_loss"] - config.hyper.entropy_coef * report["entropy"],
        num_epochs=config.epochs,
        keep_going=keep_going,
        preprocess=with_normalized_advantage if config.normalize_advantage else None,
        layout=layout,
    )
    policy, opt_state, report = fit(learner.policy, learner.policy_opt_state, batch, rows, settings)
    report["policy_grad_norm"], report["policy_steps"] = (
        report.pop("grad_norm"),
        report.pop("steps"),
    )
    return policy, opt_state, report


def with_normalized_advantage(batch: Batch) -> Batch:
    """A batch whose advantages have mean 0 and standard deviation 1."""
    advantage = normalize(batch.advantage, batch.weight)
    return eqx.tree_at(lambda batch: batch.advantage, batch, advantage)


def update_baseline(
    learner: Learner,
    batch: Batch,
    rows: Int[Array, "epochs steps rows"] | None,
    config: Config,
    layout: Layout = ALONE,
) -> tuple[Any, PyTree, Report]:
    """`baseline_epochs` passes of the baseline; nothing without a baseline."""
    if learner.baseline is None:
        names = ("value_loss", "baseline_grad_norm", "explained_variance")
        return None, None, dict.fromkeys(names, jnp.full((), jnp.nan))

    optimizer = config.optimizers.baseline
    assert optimizer is not None
    settings = FitSettings(
        objective=functools.partial(baseline_objective, config=config),
        optimizer=optimizer,
        loss=lambda report: report["value_loss"],
        num_epochs=config.baseline_epochs,
        layout=layout,
    )
    baseline, opt_state, report = fit(
        learner.baseline, learner.baseline_opt_state, batch, rows, settings
    )
    report["baseline_grad_norm"] = report.pop("grad_norm")
    del report["steps"]
    report["explained_variance"] = explained_variance(batch.value, batch.value_target, batch.weight)
    return baseline, opt_state, report


def policy_objective(
    policy: Policy, batch: Batch, config: Config
) -> tuple[Float[Array, " batch"], RowReport]:
    """`policy_loss − entropy_coef · entropy`, and the policy's share of `Metrics`, of each row."""

    def log_prob_and_entropy(obs, action):
        distribution = policy(obs)
        return distribution.log_prob(action), distribution.entropy()

    log_prob, entropy = jax.vmap(log_prob_and_entropy)(batch.obs, batch.action)
    policy_loss = config.algorithm.policy_loss(
        log_prob, batch.log_prob, batch.advantage, config.hyper
    )
    log_ratio = log_prob - batch.log_prob
    ratio = jnp.exp(log_ratio)
    is_clipped = jnp.abs(ratio - 1) > config.hyper.clip_eps
    report = {
        "policy_loss": policy_loss,
        "entropy": entropy,
        "approx_kl": ratio - 1 - log_ratio,
        "clip_fraction": is_clipped.astype(ratio.dtype),
    }
    return policy_loss - config.hyper.entropy_coef * entropy, report


def baseline_objective(
    baseline: Baseline, batch: Batch, config: Config
) -> tuple[Float[Array, " batch"], RowReport]:
    """The value loss of a baseline, of each row."""
    assert config.algorithm.value_loss is not None
    value_loss = config.algorithm.value_loss(
        jax.vmap(baseline)(batch.obs), batch.value, batch.value_target, config.hyper
    )
    return value_loss, {"value_loss": value_loss}
