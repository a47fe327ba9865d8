"""The second half of a step: estimate advantages, then update the policy and the baseline."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from purerl.carried import Carried, observe, parameters, with_parameters
from purerl.config import Config
from purerl.losses import explained_variance, normalize, weighted_mean
from purerl.types import Baseline, Estimate, Policy, Transition

Report = dict[str, Float[Array, ""]]


class Learner(eqx.Module):
    """What is learnt: two networks, each with the state of its own optimiser.

    `baseline` and `baseline_opt_state` are None for an algorithm without a baseline.
    """

    policy: Any
    baseline: Any
    policy_opt_state: PyTree
    baseline_opt_state: PyTree


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
    key: Key[Array, ""], learner: Learner, rollout: Transition, config: Config
) -> tuple[Learner, Report]:
    """Learn from one rollout: `epochs` passes of the policy, `baseline_epochs` of the baseline.

    Each pass is over `num_minibatches` minibatches, shuffled anew. The two networks share nothing,
    so the order of their updates makes no difference.

    **Returns:** the new learner, and its share of `Metrics` by name. A minibatch in which every
    transition has weight 0 changes nothing; where there is no other, the metrics are NaN.
    """
    value, next_value = values(learner.baseline, rollout)
    estimate = jax.lax.stop_gradient(
        config.algorithm.estimate(rollout, value, next_value, config.hyper)
    )
    batch = make_batch(rollout, value, estimate)
    policy, policy_opt_state, policy_report = update_policy(key, learner, batch, config)
    baseline, baseline_opt_state, baseline_report = update_baseline(key, learner, batch, config)
    learner = Learner(policy, baseline, policy_opt_state, baseline_opt_state)
    return observe(learner, rollout.obs), policy_report | baseline_report


def values(
    baseline: Baseline | None, rollout: Transition
) -> tuple[Float[Array, "T N"], Float[Array, "T N"]] | tuple[None, None]:
    """V of each observation of a rollout and of its true successor; None without a baseline."""
    if baseline is None:
        return None, None
    of_rollout = jax.vmap(jax.vmap(baseline))
    return of_rollout(rollout.obs), of_rollout(rollout.next_obs)


def make_batch(rollout: Transition, value: Float[Array, "T N"] | None, estimate: Estimate) -> Batch:
    """Lay a rollout `[T, N]` and what was made of it out as rows `[T · N]`."""
    weight = estimate.weight
    # NaN behind a weight of 0 would pass into the gradient: 0 · NaN is NaN there too.
    advantage = jnp.where(weight > 0, estimate.advantage, 0)
    value_target = jnp.where(weight > 0, estimate.value_target, 0)

    def rows(x: Shaped[Array, "T N ..."]) -> Shaped[Array, "batch ..."]:
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


def shuffles(key: Key[Array, ""], epochs: int, config: Config) -> Int[Array, "steps rows"] | None:
    """The rows of each minibatch: a permutation of the batch an epoch, cut into pieces.

    None where an epoch is one full batch, whose order makes no difference.
    """
    if config.num_minibatches == 1:
        return None

    def epoch_rows(epoch):
        epoch_key = jax.random.fold_in(key, epoch)
        order = jax.random.permutation(epoch_key, config.env_steps_per_update)
        return order.reshape(config.num_minibatches, -1)

    rows = jax.vmap(epoch_rows)(jnp.arange(epochs))
    return rows.reshape(epochs * config.num_minibatches, -1)


def update_policy(
    key: Key[Array, ""], learner: Learner, batch: Batch, config: Config
) -> tuple[Any, PyTree, Report]:
    """`epochs` passes of the policy, up to the minibatch in which the KL exceeds `target_kl`."""

    def objective(policy, minibatch):
        return policy_objective(policy, minibatch, config)

    def goes_on(report):
        # Not <=: where the KL is NaN the step is taken, so that the agent is seen to fail.
        return ~(report["approx_kl"] > config.hyper.target_kl)

    optimizer, _ = optimizers(config)
    rows = shuffles(key, config.epochs, config)
    policy, opt_state, report = fit(
        learner.policy,
        learner.policy_opt_state,
        batch,
        rows,
        optimizer=optimizer,
        objective=objective,
        goes_on=goes_on,
        num_steps=config.epochs * config.num_minibatches,
    )
    report["policy_grad_norm"] = report.pop("grad_norm")
    return policy, opt_state, report


def update_baseline(
    key: Key[Array, ""], learner: Learner, batch: Batch, config: Config
) -> tuple[Any, PyTree, Report]:
    """`baseline_epochs` passes of the baseline; nothing without a baseline."""
    if learner.baseline is None:
        names = ("value_loss", "baseline_grad_norm", "explained_variance")
        return None, None, dict.fromkeys(names, jnp.float32(jnp.nan))

    def objective(baseline, minibatch):
        value_loss = baseline_objective(baseline, minibatch, config)
        return value_loss, {"value_loss": value_loss}

    _, optimizer = optimizers(config)
    rows = shuffles(key, config.baseline_epochs, config)
    baseline, opt_state, report = fit(
        learner.baseline,
        learner.baseline_opt_state,
        batch,
        rows,
        optimizer=optimizer,
        objective=objective,
        goes_on=lambda report: jnp.array(True),
        num_steps=config.baseline_epochs * config.num_minibatches,
    )
    report["baseline_grad_norm"] = report.pop("grad_norm")
    fit_before = explained_variance(batch.value, batch.value_target, batch.weight)
    return baseline, opt_state, report | {"explained_variance": fit_before}


def policy_objective(
    policy: Policy, batch: Batch, config: Config
) -> tuple[Float[Array, ""], Report]:
    """`policy_loss − entropy_coef · entropy`, and the policy's share of `Metrics`."""

    def one(obs, action):
        distribution = policy(obs)
        return distribution.log_prob(action), distribution.entropy()

    log_prob, entropy = jax.vmap(one)(batch.obs, batch.action)
    advantage = batch.advantage
    if config.normalize_advantage:
        advantage = normalize(advantage, batch.weight)
    policy_loss = config.algorithm.policy_loss(
        log_prob, batch.log_prob, advantage, batch.weight, config.hyper
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


def baseline_objective(baseline: Baseline, batch: Batch, config: Config) -> Float[Array, ""]:
    """The value loss of a baseline on a batch."""
    assert config.algorithm.value_loss is not None
    return config.algorithm.value_loss(
        jax.vmap(baseline)(batch.obs), batch.value, batch.value_target, batch.weight, config.hyper
    )


class Fit(eqx.Module):
    """A network between two gradient steps."""

    parameters: PyTree
    opt_state: PyTree
    stopped: Bool[Array, ""]


def fit(
    network: Carried,
    opt_state: PyTree,
    batch: Batch,
    rows: Int[Array, "steps rows"] | None,
    *,
    optimizer: optax.GradientTransformation,
    objective: Callable[[Any, Batch], tuple[Float[Array, ""], Report]],
    goes_on: Callable[[Report], Bool[Array, ""]],
    num_steps: int,
) -> tuple[Carried, PyTree, Report]:
    """Take `num_steps` gradient steps on the minibatches that `rows` name, or on the whole batch.

    A step is taken while `goes_on` holds of the report before it, and where there is any weight.

    **Returns:** the network, the state of its optimiser, and the report: means over the steps
    taken, NaN where there were none.
    """

    def step(now, rows):
        minibatch = batch if rows is None else jax.tree.map(lambda x: x[rows], batch)

        def loss(parameters):
            return objective(with_parameters(network, parameters), minibatch)

        gradient, report = jax.grad(loss, has_aux=True)(now.parameters)
        report = report | {"grad_norm": optax.tree.norm(gradient)}
        stopped = now.stopped | ~goes_on(report)
        taken = ~stopped & jnp.any(minibatch.weight > 0)
        change, opt_state = optimizer.update(gradient, now.opt_state, now.parameters)
        stepped = Fit(eqx.apply_updates(now.parameters, change), opt_state, stopped)
        kept = Fit(now.parameters, now.opt_state, stopped)
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), stepped, kept)
        return after, (report, taken)

    start = Fit(parameters(network), opt_state, jnp.array(False))
    end, (reports, taken) = jax.lax.scan(step, start, rows, length=num_steps)
    count = jnp.sum(taken)
    report = jax.tree.map(lambda x: jnp.sum(jnp.where(taken, x, 0)) / count, reports)
    return with_parameters(network, end.parameters), end.opt_state, report
