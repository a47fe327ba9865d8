"""Gradients of losses against finite differences, and what the baseline is for."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree
from probes import Probe

import purerl
from purerl.algorithms import VPG, monte_carlo_estimate
from purerl.fit import mean_gradient
from purerl.networks.network import parameters
from purerl.rollout import collect, reset_envs
from purerl.types import Estimate
from purerl.update import (
    Batch,
    Learner,
    baseline_objective,
    make_batch,
    policy_objective,
    rollout_values,
    update,
    update_baseline,
    with_normalized_advantage,
)

ENTROPY_COEF = 0.125
ROWS = 12

init = jax.jit(purerl.init)


def small_config(**settings):
    probe = Probe(reward="match", length=3)
    config = purerl.vpg(probe, num_envs=4, rollout_length=8, hidden=(5,), **settings)
    return jax.tree.map(jnp.asarray, config)  # arrays, as a jitted function sees them


@jax.jit
def float64_learner_and_batch(config):
    """Networks away from their start, and rows of which some have weight 0. Call within x64."""
    keys = jax.random.split(jax.random.key(1), 6)
    learner = jax.tree.map(
        lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x,
        init(keys[0], config).learner,
    )
    parameters, unravel = ravel_pytree(learner.policy)
    policy = unravel(parameters + jax.random.normal(keys[1], parameters.shape))
    batch = Batch(
        obs=jax.random.normal(keys[2], (ROWS, 1)),
        action=jax.random.randint(keys[3], (ROWS,), 0, 2),
        log_prob=jnp.zeros(ROWS),
        value=jnp.zeros(ROWS),
        advantage=jax.random.normal(keys[4], (ROWS,)),
        value_target=jax.random.normal(keys[5], (ROWS,)),
        weight=(jnp.arange(ROWS) % 3).astype(jnp.float64),
    )
    return Learner(policy, learner.baseline, None, None), batch


@functools.partial(jax.jit, static_argnums=0)
def gradient_of(objective, network, batch, config):
    of_config = functools.partial(objective, config=config)
    return ravel_pytree(mean_gradient(parameters(network), network, batch, of_config)[0])[0]


def finite_differences(function, module, step=1e-6):
    """Central differences of a plain NumPy function of a module, one parameter at a time."""
    parameters, unravel = ravel_pytree(module)
    assert parameters.dtype == jnp.float64

    def slope(direction):
        ahead = function(unravel(parameters + step * direction))
        behind = function(unravel(parameters - step * direction))
        return (ahead - behind) / (2 * step)

    return np.array([slope(direction) for direction in np.eye(parameters.size)])


def test_policy_gradient_is_the_slope_of_the_loss_less_the_entropy_bonus():
    config = small_config(entropy_coef=ENTROPY_COEF, normalize_advantage=False)
    with jax.enable_x64(True):
        learner, batch = float64_learner_and_batch(config)
        logits_of = jax.jit(lambda policy: jax.vmap(policy)(batch.obs).logits)

        def by_hand(policy):
            log_probs = scipy.special.log_softmax(np.asarray(logits_of(policy)), axis=1)
            log_prob = log_probs[np.arange(ROWS), np.asarray(batch.action)]
            entropy = -np.sum(np.exp(log_probs) * log_probs, axis=1)
            objective = -log_prob * np.asarray(batch.advantage) - ENTROPY_COEF * entropy
            return np.average(objective, weights=np.asarray(batch.weight))

        got = gradient_of(policy_objective, learner.policy, batch, config)
        want = finite_differences(by_hand, learner.policy)
    assert np.all(np.abs(want) > 1e-5)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


def test_baseline_gradient_is_the_slope_of_the_mean_squared_error():
    config = small_config(normalize_advantage=False)  # the same program as that of the policy
    with jax.enable_x64(True):
        learner, batch = float64_learner_and_batch(config)
        value_of = jax.jit(lambda baseline: jax.vmap(baseline)(batch.obs))

        def by_hand(baseline):
            error = np.asarray(value_of(baseline)) - np.asarray(batch.value_target)
            return np.average(error**2, weights=np.asarray(batch.weight))

        got = gradient_of(baseline_objective, learner.baseline, batch, config)
        want = finite_differences(by_hand, learner.baseline)
    assert np.all(np.abs(want) > 1e-5)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


UPDATE_KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def collected():
    """A learner and its first rollout, for configs that differ in what they make of it alone."""

    @jax.jit
    def collect_first(config):
        state = init(jax.random.key(0), config)
        _, rollout, _ = collect(jax.random.key(1), state.learner.policy, state.envs, config)
        return state.learner, rollout

    return collect_first(small_config())


def test_the_baselines_update_does_not_depend_on_the_policy(collected):
    learner, rollout = collected

    @jax.jit
    def moves(policy):
        def updated(policy):
            start = eqx.tree_at(lambda learner: learner.policy, learner, policy)
            after = update(UPDATE_KEY, start, rollout, small_config())[0]
            return eqx.filter(after, eqx.is_inexact_array)

        return jax.jvp(updated, (policy,), (jax.tree.map(jnp.ones_like, policy),))[1]

    tangents = moves(learner.policy)
    for leaf in jax.tree.leaves((tangents.baseline, tangents.baseline_opt_state)):
        assert jnp.all(leaf == 0)
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(tangents.policy))


def fresh_rollout(key, policy, config):
    reset_key, act_key = jax.random.split(key)
    return collect(act_key, policy, reset_envs(reset_key, config), config)[1]


def fit_baseline(key, learner, config):
    rollout = fresh_rollout(key, learner.policy, config)
    value, next_value = rollout_values(learner.baseline, rollout)
    estimate = config.algorithm.estimate(rollout, value, next_value, config.hyper)
    batch = make_batch(rollout, value, estimate)
    baseline, baseline_opt_state, _ = update_baseline(learner, batch, None, config)
    return Learner(learner.policy, baseline, learner.policy_opt_state, baseline_opt_state)


def gradients_without_and_with_baseline(key, learner, config):
    """Of the same steps, those that look ahead half of the rollout; no time limit cuts any."""
    rollout = fresh_rollout(key, learner.policy, config)
    without = monte_carlo_estimate(rollout, None, None, config.hyper)
    value, next_value = rollout_values(learner.baseline, rollout)
    with_baseline = config.algorithm.estimate(rollout, value, next_value, config.hyper)
    with_baseline = with_baseline._replace(weight=without.weight)

    def gradient(estimate):
        batch = make_batch(rollout, None, estimate)
        if config.normalize_advantage:
            batch = with_normalized_advantage(batch)
        return gradient_of(policy_objective, learner.policy, batch, config)

    return gradient(without), gradient(with_baseline), jnp.any(rollout.truncated)


def variance_ratio(key, config, num_fits=10, num_rollouts=24):
    """The variance of the gradient with a fitted baseline, over that without."""
    init_key, fit_key, gradient_key = jax.random.split(key, 3)
    learner, _ = jax.lax.scan(
        lambda learner, key: (fit_baseline(key, learner, config), None),
        init(init_key, config).learner,
        jax.random.split(fit_key, num_fits),
    )
    without, with_baseline, truncated = jax.vmap(
        lambda key: gradients_without_and_with_baseline(key, learner, config)
    )(jax.random.split(gradient_key, num_rollouts))
    ratio = jnp.sum(jnp.var(with_baseline, axis=0)) / jnp.sum(jnp.var(without, axis=0))
    return ratio, jnp.any(truncated)


@pytest.mark.slow
def test_a_baseline_fitted_on_other_rollouts_lowers_the_variance_of_the_policy_gradient():
    settings = {"num_envs": 4, "rollout_length": 128, "hidden": (16,), "baseline_epochs": 20}
    config = purerl.vpg("CartPole-v1", normalize_advantage=False, **settings)
    keys = purerl.seed_keys(0, 8)
    ratios, truncated = jax.jit(jax.vmap(variance_ratio, (0, None)))(keys, config)
    assert not jnp.any(truncated)
    interval = scipy.stats.bootstrap((ratios,), np.mean, rng=0).confidence_interval
    assert interval.high < 1, f"{interval} of the mean of {np.asarray(ratios)}"


def nothing_counts(rollout, value, next_value, hyper):
    zero = jnp.zeros_like(rollout.reward)
    return Estimate(advantage=zero + 1, value_target=zero + 1, weight=zero)


def with_momentum(learner, momentum):
    """Optimiser states with which even a gradient of 0 would move the parameters."""
    moved = jax.tree.map(
        lambda x: x + momentum if eqx.is_inexact_array(x) else x,
        (learner.policy_opt_state, learner.baseline_opt_state),
    )
    return Learner(learner.policy, learner.baseline, *moved)


@jax.jit
def first_step(config, momentum):
    before = init(jax.random.key(0), config)
    learner = with_momentum(before.learner, momentum)
    before = eqx.tree_at(lambda state: state.learner, before, learner)
    return before, *purerl.train_step(before, config)


SIZES = {"num_envs": 2, "rollout_length": 16, "hidden": (5,)}


@pytest.mark.parametrize("algorithm", [purerl.REINFORCE, VPG])
def test_where_every_weight_is_0_nothing_is_updated(algorithm):
    nothing = algorithm._replace(estimate=nothing_counts)
    config = purerl.vpg(Probe(length=3), algorithm=nothing, entropy_coef=ENTROPY_COEF, **SIZES)
    before, after, metrics = first_step(config, 0.5)
    assert eqx.tree_equal(after.learner, before.learner)
    assert after.step == before.step + 1
    assert after.failed_at == -1
    assert not jnp.array_equal(after.envs.state.time, before.envs.state.time)
    assert all(jnp.isnan(x) for x in (metrics.policy_loss, metrics.entropy, metrics.value_loss))


@pytest.mark.parametrize("algorithm", [purerl.reinforce, purerl.vpg])
def test_where_a_weight_is_not_0_the_networks_and_their_optimisers_are_updated(algorithm):
    config = algorithm(Probe(reward="match", length=2), **SIZES)
    before, after, _ = first_step(config, 0.0)
    names = ("policy", "policy_opt_state") + (
        ("baseline", "baseline_opt_state") if before.learner.baseline else ()
    )
    for name in names:
        assert not eqx.tree_equal(getattr(after.learner, name), getattr(before.learner, name))
