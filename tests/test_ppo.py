"""PPO and A2C: the losses, minibatches, the early stop, schedules, what they learn."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import CutShort, Probe
from small import Choice, OneOf
from trees import assert_bitwise_equal

import purerl
from purerl.config.schedules import hyper_at
from purerl.config.settings import HYPER_DEFAULTS
from purerl.fit import mean_gradient
from purerl.losses import clipped_squared_error, clipped_surrogate, squared_error
from purerl.networks.network import parameters
from purerl.rollout import collect
from purerl.types import Estimate
from purerl.update import (
    make_batch,
    minibatch_rows,
    policy_objective,
    rollout_values,
    update,
    with_normalized_advantage,
)

SMALL: dict[str, Any] = {"num_envs": 4, "rollout_length": 8, "total_steps": 4 * 8 * 3}
HYPER = purerl.ppo(Probe()).hyper
ENV = Probe("match", length=3)

update = jax.jit(update)
collect = jax.jit(collect)


@pytest.fixture(scope="module")
def start():
    """A state before its first update, and its rollout: the same for every algorithm."""
    config = purerl.ppo(ENV, **SMALL)
    state = jax.jit(purerl.init)(jax.random.key(0), config)
    return state, collect(jax.random.key(1), state.learner.policy, state.envs, config)[1]


# Losses


@jax.jit
def surrogate_of(ratio, advantage):
    return clipped_surrogate(jnp.log(ratio), jnp.zeros(4), advantage, HYPER)


def test_the_surrogate_of_a_hand_worked_case():
    ratio = jnp.array([1.5, 0.5, 1.5, 0.5])
    advantage = jnp.array([1.0, 1.0, -1.0, -1.0])
    # ε 0.2: min(1.5, 1.2), min(0.5, 0.8), min(−1.5, −1.2), min(−0.5, −0.8).
    found = surrogate_of(ratio, advantage)
    want = [-1.2, -0.5, 1.5, 0.8]
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_the_surrogate_has_no_slope_where_it_is_clipped():
    ratio = jnp.array([1.5, 0.5, 1.5, 0.5])
    advantage = jnp.array([1.0, 1.0, -1.0, -1.0])
    slope = jax.jit(jax.grad(lambda ratio: jnp.sum(surrogate_of(ratio, advantage))))(ratio)
    np.testing.assert_array_equal(slope == 0, [True, False, False, True])


def test_the_clipped_value_loss_of_a_hand_worked_case_is_the_larger_of_two():
    value, old, target = jnp.array([1.0, 1.0, 0.1, -1.0]), jnp.zeros(4), jnp.array([2.0, 0, 1, 0])
    # V kept within 0.2 of 0: 0.2, 0.2, 0.1, −0.2.
    want = [max(1.0, 1.8**2), max(1.0, 0.04), 0.9**2, max(1.0, 0.04)]
    found = clipped_squared_error(value, old, target, HYPER)
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_the_setting_clip_value_chooses_that_loss():
    assert purerl.ppo(Probe()).algorithm.value_loss is squared_error
    assert purerl.ppo(Probe(), clip_value=True).algorithm.value_loss is clipped_squared_error


def one_step_of_ppo(**settings: Any):
    """Settings of one epoch of one minibatch."""
    return purerl.ppo(ENV, epochs=1, num_minibatches=1, schedule={}, **SMALL, **settings)


def test_ppo_without_clipping_takes_the_first_step_of_a2c(start):
    same: dict[str, Any] = {"policy_learning_rate": 1e-3, "baseline_learning_rate": 1e-3}
    a2c = purerl.a2c(ENV, baseline_epochs=1, **SMALL, **same)
    ppo = one_step_of_ppo(clip_eps=np.inf, **same)
    (state, rollout), key = start, jax.random.key(2)
    learner = state.learner
    after_a2c, report_a2c = update(key, learner, rollout, a2c)
    after_ppo, report_ppo = update(key, learner, rollout, ppo)
    assert not eqx.tree_equal(after_a2c.policy, learner.policy)
    for name in ("policy", "baseline"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            getattr(after_a2c, name),
            getattr(after_ppo, name),
        )
    np.testing.assert_allclose(
        report_a2c["policy_grad_norm"], report_ppo["policy_grad_norm"], rtol=1e-4
    )


# Minibatches


shuffled = jax.jit(minibatch_rows)


def orders(key, config):
    rows = shuffled(key, config)
    return np.asarray(rows).reshape(config.epochs, config.env_steps_per_update)


def test_every_epoch_is_a_permutation_of_all_rows_and_no_two_are_alike():
    config = purerl.ppo(Probe(), epochs=6, num_minibatches=8, **SMALL)
    found = orders(jax.random.key(0), config)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(32), (6, 1)))
    assert len({tuple(order) for order in found}) == 6
    assert not any(np.array_equal(order, np.arange(32)) for order in found)


def test_seeds_and_updates_are_shuffled_differently():
    config = purerl.ppo(Probe(), **SMALL)
    found = []
    for state_key in (jax.random.key(0), jax.random.key(1)):
        for step in range(2):
            _, update_key = jax.random.split(jax.random.fold_in(state_key, step))
            found += [tuple(order) for order in orders(update_key, config)]
    assert len(set(found)) == 4 * config.epochs


def test_a_full_batch_is_not_shuffled():
    assert minibatch_rows(jax.random.key(0), purerl.vpg(Probe(), **SMALL)) is None


def by_hand(learner, rollout, config, key):
    """The policy's minibatches in a Python loop that breaks where the KL is too large."""
    batch = batch_of(learner, rollout, config)
    current, opt_state = parameters(learner.policy), learner.policy_opt_state
    reports = []
    names = ["approx_kl", "clip_fraction", "entropy", "policy_loss"]
    steps = 0
    for rows in orders(key, config).reshape(config.epochs * config.num_minibatches, -1):
        moved, report = gradient_step(current, opt_state, learner.policy, batch, rows, config)
        reports.append(report)
        if float(report[names.index("approx_kl")]) > float(config.hyper.target_kl):
            break
        current, opt_state = moved
        steps += 1
    return current, steps, dict(zip(names, np.mean(reports, axis=0), strict=True))


@jax.jit
def batch_of(learner, rollout, config):
    value, next_value = rollout_values(learner.baseline, rollout)
    estimate = config.algorithm.estimate(rollout, value, next_value, config.hyper)
    return make_batch(rollout, value, estimate)


@jax.jit
def gradient_step(current, opt_state, policy, batch, rows, config):
    minibatch = with_normalized_advantage(jax.tree.map(lambda x: x[rows], batch))
    objective = functools.partial(policy_objective, config=config)
    gradient, report = mean_gradient(current, policy, minibatch, objective)
    optimizer = config.optimizers.policy
    change, opt_state = optimizer.update(gradient, opt_state, current)
    return (eqx.apply_updates(current, change), opt_state), report


@pytest.mark.parametrize(("target_kl", "stops"), [(0.02, True), (np.inf, False)])
def test_the_policy_stops_where_a_loop_that_breaks_does_and_the_baseline_goes_on(
    target_kl, stops, start
):
    config = purerl.ppo(ENV, target_kl=target_kl, policy_learning_rate=2e-3, **SMALL)
    (state, rollout), key = start, jax.random.key(2)
    learner = state.learner
    after, report = update(key, learner, rollout, config)
    want, steps, means = by_hand(learner, rollout, config, key)
    assert (1 < steps < 16) if stops else steps == 16
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        parameters(after.policy),
        want,
    )
    counts = [leaf for leaf in jax.tree.leaves(after.baseline_opt_state) if leaf.dtype == jnp.int32]
    assert [int(count) for count in counts] == [16]
    assert float(report["policy_steps"]) == steps
    for name, mean in means.items():  # with the minibatch at which it stopped
        assert float(report[name]) == pytest.approx(mean, rel=1e-3, abs=1e-5)


def half_counts(rollout, value, next_value, hyper):
    weight = jnp.zeros_like(rollout.reward).at[0].set(1.0)
    return Estimate(advantage=rollout.reward - 0.5, value_target=rollout.reward, weight=weight)


def test_a_minibatch_without_weight_moves_nothing(start):
    # The first of 8 steps in 4 environments counts: 4 rows, in minibatches of one row each.
    algorithm = purerl.PPO._replace(estimate=half_counts)
    config = purerl.ppo(ENV, algorithm=algorithm, epochs=1, num_minibatches=32, **SMALL)
    state, rollout = start
    after, report = update(jax.random.key(0), state.learner, rollout, config)
    counts = [leaf for leaf in jax.tree.leaves(after.policy_opt_state) if leaf.dtype == jnp.int32]
    assert [int(count) for count in counts] == [4]
    assert np.isfinite(report["policy_loss"])


def test_the_first_minibatch_of_a_rollout_has_no_kl(start):
    (state, _), config = start, purerl.ppo(ENV, **SMALL)
    learner, envs = state.learner, state.envs
    for key in jax.random.split(jax.random.key(0), 3):
        envs, rollout, _ = collect(key, learner.policy, envs, config)
        before = learner.policy
        learner, report = update(key, learner, rollout, one_step_of_ppo())
        assert abs(float(report["approx_kl"])) < 1e-6
        assert float(report["clip_fraction"]) == 0
        assert not eqx.tree_equal(learner.policy, before)


def test_later_epochs_have_a_kl_and_clip(start):
    config = purerl.ppo(ENV, policy_learning_rate=3e-2, **SMALL)
    state, rollout = start
    _, report = update(jax.random.key(0), state.learner, rollout, config)
    assert float(report["approx_kl"]) > 1e-4
    assert float(report["clip_fraction"]) > 0


# Schedules


def hyper_after(config, step):
    state = jax.eval_shape(purerl.init, jax.random.key(0), config)
    return hyper_at(config, eqx.tree_at(lambda state: state.step, state, jnp.int32(step)))


def test_a_linear_schedule_falls_from_the_value_to_a_share_of_it():
    names = ("policy_learning_rate", "baseline_learning_rate", "entropy_coef", "clip_eps")
    config = purerl.ppo(Probe(), schedule=dict.fromkeys(names, "linear"), entropy_coef=0.1, **SMALL)
    assert config.num_updates == 3
    first, last, beyond = (hyper_after(config, t) for t in (0, 2, 9))
    for name in HYPER_DEFAULTS:
        value = float(getattr(config.hyper, name))
        share = 1 / 3 if name in names else 1
        np.testing.assert_allclose(getattr(first, name), value, rtol=1e-6)
        np.testing.assert_allclose(getattr(last, name), value * share, rtol=1e-6)
        np.testing.assert_allclose(getattr(beyond, name), value * share, rtol=1e-6)


def sgd(learning_rate, max_grad_norm):
    return optax.sgd(learning_rate)


def test_each_update_takes_a_step_of_the_scheduled_rate():
    config = purerl.a2c(
        ENV,
        optimizer=sgd,
        policy_learning_rate=0.1,
        schedule={"policy_learning_rate": "linear"},
        **SMALL,
    )
    state = jax.jit(purerl.init)(jax.random.key(0), config)

    @jax.jit
    def step(before, config):
        after, metrics = purerl.train_step(before, config)
        networks = [parameters(state.learner.policy) for state in (after, before)]
        return after, metrics, optax.tree.norm(optax.tree.sub(*networks))

    for rate in (0.1, 0.1 * 2 / 3, 0.1 / 3):
        state, metrics, change = step(state, config)
        np.testing.assert_allclose(change, rate * metrics.policy_grad_norm, rtol=1e-2)


def test_without_a_schedule_hyperparameters_are_left_as_they_are():
    config = purerl.vpg(Probe(), **SMALL)
    assert_bitwise_equal(hyper_after(config, 1), config.hyper)


def test_schedules_in_any_order_are_one_config():
    names = ("policy_learning_rate", "clip_eps")
    first, second = (
        purerl.ppo(Probe(), schedule=dict.fromkeys(order, "linear"), **SMALL)
        for order in (names, names[::-1])
    )
    assert first.schedule == second.schedule
    assert purerl.ppo(Probe(), schedule=dict(first.schedule), **SMALL).schedule == first.schedule
    with pytest.raises(ValueError, match=r"schedule = .* must be sorted pairs"):
        dataclasses.replace(first, schedule=first.schedule[::-1])


# What they learn


PROBES = (Probe("match", length=2), CutShort())
train_seeds = jax.jit(jax.vmap(purerl.train, (0, None)))


def trained(algorithm, probe, **settings):
    """Three seeds, trained for 200 updates; an algorithm's are one program for both probes."""
    sizes = {"num_envs": 8, "rollout_length": 16, "total_steps": 8 * 16 * 200, "hidden": (16,)}
    params = Choice(PROBES.index(probe))
    config = algorithm(OneOf(PROBES), env_params=params, **sizes, **settings)
    return train_seeds(purerl.seed_keys(0, 3), config)


@pytest.mark.parametrize("algorithm", [purerl.a2c, purerl.ppo])
def test_the_policy_learns_the_action_that_the_observation_asks_for(algorithm):
    _, metrics = trained(algorithm, Probe("match", length=2), policy_learning_rate=1e-2)
    assert np.all(metrics.episode_return[:, 0] < 1.7)
    assert np.all(metrics.episode_return[:, -5:].mean(axis=1) > 1.9)


@pytest.mark.parametrize("algorithm", [purerl.a2c, purerl.ppo])
def test_a_truncated_episode_is_bootstrapped_from_its_final_observation(algorithm):
    state, _ = trained(algorithm, CutShort(), discount=0.5, baseline_learning_rate=1e-2)
    obs = jnp.array([[0.0], [1.0]])
    values_of = jax.jit(jax.vmap(lambda baseline: jax.vmap(baseline)(obs)))
    value = values_of(state.learner.baseline)
    np.testing.assert_allclose(value, [[0.5, 1]] * 3, atol=0.06)
