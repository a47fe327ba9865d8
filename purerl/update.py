"""The second half of a step: estimate advantages, then update the policy and the baseline."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from purerl.compute.mesh import over_envs
from purerl.compute.platforms import by_platform
from purerl.compute.rows import _value_where_cut, as_rows, map_rows, of_rows, row_numbers, shuffles
from purerl.config.config import Config
from purerl.config.optimizers import optimizers
from purerl.fit import Batch, Report, RowReport, fit
from purerl.losses import explained_variance, normalize
from purerl.networks.network import observe
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
    key: Key[Array, ""], learner: Learner, rollout: Transition, config: Config
) -> tuple[Learner, Report]:
    """Learn from one rollout: `epochs` passes of the policy, `baseline_epochs` of the baseline.

    Each pass is over `num_minibatches` minibatches, shuffled anew. The two networks share nothing,
    so the order of their updates makes no difference.

    **Returns:** the new learner, and its share of `Metrics` by name. A minibatch in which every
    transition has weight 0 changes nothing; where there is no other, the metrics are NaN.
    """
    value, next_value = (
        (None, None) if learner.baseline is None else values(learner.baseline, rollout)
    )
    estimate = jax.lax.stop_gradient(
        config.algorithm.estimate(rollout, value, next_value, config.hyper)
    )
    batch = make_batch(rollout, value, estimate)
    rows = minibatches(key, config)
    policy, policy_opt_state, policy_report = update_policy(learner, batch, rows, config)
    baseline, baseline_opt_state, baseline_report = update_baseline(learner, batch, rows, config)
    learner = Learner(policy, baseline, policy_opt_state, baseline_opt_state)
    return observe(learner, rollout.obs), policy_report | baseline_report


def values(
    baseline: Baseline, rollout: Transition
) -> tuple[Float[Array, "T N"], Float[Array, "T N"]]:
    """V of each observation of a rollout and of its true successor.

    That of the successor is that of the next observation, but where the episode was cut and in the
    last step. Behind a termination it is not needed, and says nothing.
    """
    shape = rollout.reward.shape
    value = of_rows(map_rows(baseline, as_rows(rollout.obs)), shape)
    last = jax.vmap(baseline)(rollout.next_obs[-1])
    following = jnp.concatenate([value[1:], last[None]])
    cut = (rollout.truncated & ~rollout.terminated).at[-1].set(False)

    def everywhere(cut, next_obs, value):
        return jnp.where(cut, map_rows(baseline, next_obs), value)

    # A loop over the rows of all environments would gather them where these are spread.
    on_cpu = functools.partial(_value_where_cut, baseline) if over_envs() == 1 else everywhere
    cut_value = by_platform(
        *map(as_rows, (cut, rollout.next_obs, following)), cpu=on_cpu, default=everywhere
    )
    return value, of_rows(cut_value, shape)


def make_batch(rollout: Transition, value: Float[Array, "T N"] | None, estimate: Estimate) -> Batch:
    """Lay a rollout `[T, N]` and what was made of it out as rows."""
    weight = estimate.weight
    # NaN behind a weight of 0 would pass into the gradient: 0 · NaN is NaN there too.
    advantage = jnp.where(weight > 0, estimate.advantage, 0)
    value_target = jnp.where(weight > 0, estimate.value_target, 0)

    return Batch(
        obs=as_rows(rollout.obs),
        action=as_rows(rollout.action),
        log_prob=as_rows(rollout.log_prob),
        value=as_rows(jnp.zeros_like(advantage) if value is None else value),
        advantage=as_rows(advantage),
        value_target=as_rows(value_target),
        weight=as_rows(weight),
    )


def minibatches(key: Key[Array, ""], config: Config) -> Int[Array, "epochs steps rows"] | None:
    """The rows of each minibatch: a permutation of the batch an epoch, cut into pieces.

    None where an epoch is one full batch, whose order makes no difference.
    """
    if config.num_minibatches == 1:
        return None
    epochs = max(config.epochs, config.baseline_epochs)
    rows = shuffles(key, epochs, config.env_steps_per_update)
    rows = row_numbers(rows, (config.rollout_length, config.num_envs))
    return rows.reshape(epochs, config.num_minibatches, -1)


def update_policy(
    learner: Learner, batch: Batch, rows: Int[Array, "epochs steps rows"] | None, config: Config
) -> tuple[Any, PyTree, Report]:
    """`epochs` passes of the policy, up to the minibatch in which the KL exceeds `target_kl`."""

    def goes_on(report):
        # Not <=: where the KL is NaN the step is taken, so that the agent is seen to fail.
        return ~(report["approx_kl"] > config.hyper.target_kl)

    optimizer, _ = optimizers(config)
    policy, opt_state, report = fit(
        learner.policy,
        learner.policy_opt_state,
        batch,
        rows,
        optimizer=optimizer,
        objective=functools.partial(policy_objective, config=config),
        goes_on=goes_on,
        num_epochs=config.epochs,
        prepare=with_normal_advantage if config.normalize_advantage else None,
    )
    report["policy_grad_norm"] = report.pop("grad_norm")
    return policy, opt_state, report


def with_normal_advantage(batch: Batch) -> Batch:
    """A batch whose advantages have mean 0 and standard deviation 1."""
    advantage = normalize(batch.advantage, batch.weight)
    return eqx.tree_at(lambda batch: batch.advantage, batch, advantage)


def update_baseline(
    learner: Learner, batch: Batch, rows: Int[Array, "epochs steps rows"] | None, config: Config
) -> tuple[Any, PyTree, Report]:
    """`baseline_epochs` passes of the baseline; nothing without a baseline."""
    if learner.baseline is None:
        names = ("value_loss", "baseline_grad_norm", "explained_variance")
        return None, None, dict.fromkeys(names, jnp.float32(jnp.nan))

    _, optimizer = optimizers(config)
    baseline, opt_state, report = fit(
        learner.baseline,
        learner.baseline_opt_state,
        batch,
        rows,
        optimizer=optimizer,
        objective=functools.partial(baseline_objective, config=config),
        goes_on=lambda report: jnp.array(True),
        num_epochs=config.baseline_epochs,
    )
    report["baseline_grad_norm"] = report.pop("grad_norm")
    fit_before = explained_variance(batch.value, batch.value_target, batch.weight)
    return baseline, opt_state, report | {"explained_variance": fit_before}


def policy_objective(
    policy: Policy, batch: Batch, config: Config
) -> tuple[Float[Array, " batch"], RowReport]:
    """`policy_loss − entropy_coef · entropy`, and the policy's share of `Metrics`, of each row."""

    def one(obs, action):
        distribution = policy(obs)
        return distribution.log_prob(action), distribution.entropy()

    log_prob, entropy = jax.vmap(one)(batch.obs, batch.action)
    policy_loss = config.algorithm.policy_loss(
        log_prob, batch.log_prob, batch.advantage, config.hyper
    )
    log_ratio = jax.lax.stop_gradient(log_prob) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.abs(ratio - 1) > config.hyper.clip_eps
    report = {
        "policy_loss": policy_loss,
        "entropy": entropy,
        "approx_kl": ratio - 1 - log_ratio,
        "clip_fraction": clipped.astype(ratio.dtype),
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
