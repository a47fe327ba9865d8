"""Probe environments with known answers: the baseline's first, then the policy's, then sweeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import CutShort, Probe
from small import Choice, OneOf

import purerl
from purerl.rollout import collect

NUM_SEEDS = 3
PROBES = (
    Probe(reward="constant"),
    Probe(reward="obs"),
    Probe(reward="action"),
    Probe(reward="match"),
    Probe(reward="last", length=2, clock=True),
    Probe(length=0, limit=True),
    CutShort(),
)
# An odd rollout also ends in the middle of an episode of two steps.
SIZES = {"num_envs": 8, "rollout_length": 15, "total_steps": 8 * 15 * 200, "hidden": (16,)}

train_seeds = jax.jit(jax.vmap(purerl.train, (0, None)))


def trained(algorithm, probe, **settings):
    """A few seeds, trained for 200 updates; an algorithm's are one program for all probes."""
    params = Choice(PROBES.index(probe))
    config = algorithm(OneOf(PROBES), env_params=params, **SIZES | settings)
    return train_seeds(purerl.seed_keys(0, NUM_SEEDS), config)


@jax.jit
def of_each_seed(network, observations):
    """What each seed's network makes of each observation, [seeds, observations]."""
    obs = jnp.asarray(observations, jnp.float32)[:, None]
    return jax.vmap(lambda network: jax.vmap(network)(obs))(network)


def learnt_values(state, observations):
    """V of each observation by each seed, [seeds, observations]."""
    return of_each_seed(state.learner.baseline, observations)


def learnt_probabilities(state, observations):
    """The probability of action 1 at each observation by each seed, [seeds, observations]."""
    return jax.nn.softmax(of_each_seed(state.learner.policy, observations).logits)[..., 1]


@pytest.mark.slow
def test_the_baseline_learns_a_constant():
    state, _ = trained(purerl.vpg, Probe(reward="constant"))
    np.testing.assert_allclose(learnt_values(state, [-1, 1]), 1, atol=0.05)


def test_the_baseline_learns_a_function_of_the_observation():
    state, _ = trained(purerl.vpg, Probe(reward="obs"))
    np.testing.assert_allclose(learnt_values(state, [-1, 1]), [[-1, 1]] * NUM_SEEDS, atol=0.05)


def test_the_baseline_discounts_a_later_reward():
    state, _ = trained(purerl.vpg, Probe(reward="last", length=2, clock=True), discount=0.6)
    np.testing.assert_allclose(learnt_values(state, [0, 1]), [[0.6, 1]] * NUM_SEEDS, atol=0.05)


def test_the_baseline_sees_past_a_time_limit():
    # 1 + 0.9 + 0.81 + … = 10: a limit of 5 steps treated as a termination would give 4.1 at most.
    state, _ = trained(purerl.vpg, Probe(length=0, limit=True), discount=0.9)
    np.testing.assert_allclose(learnt_values(state, [-1, 1]), 10, atol=0.5)


def test_the_baseline_bootstraps_from_the_final_observation_and_not_from_the_reset():
    # From the reset's observation, V(0) would be 0.5 · (V(0) + V(1)) / 2 = 1/3.
    state, _ = trained(purerl.vpg, CutShort(), discount=0.5)
    np.testing.assert_allclose(learnt_values(state, [0, 1]), [[0.5, 1]] * NUM_SEEDS, atol=0.05)


def test_reinforce_takes_the_sum_of_a_truncated_episode_and_leaves_out_what_it_cannot_see():
    probe = Probe(length=0, limit=True)
    config = purerl.reinforce(probe, num_envs=2, rollout_length=12, discount=0.9)

    @jax.jit
    def estimate(key, config):
        state = purerl.init(key, config)
        _, rollout, _ = collect(key, state.learner.policy, state.envs, config)
        return config.estimate(rollout, None, None, config.hyper)

    # Reward 1, two episodes of five steps, two steps of a third.
    returns = [4.0951, 3.439, 2.71, 1.9, 1.0] * 2
    got = estimate(jax.random.key(0), config)
    np.testing.assert_array_equal(got.weight, np.repeat([[1] * 10 + [0] * 2], 2, axis=0).T)
    np.testing.assert_allclose(got.advantage[:10], np.repeat([returns], 2, axis=0).T, rtol=1e-5)


@pytest.mark.parametrize("algorithm", [purerl.reinforce, purerl.vpg])
def test_the_policy_learns_the_action_that_pays(algorithm):
    state, metrics = trained(algorithm, Probe(reward="action"))
    assert jnp.all(learnt_probabilities(state, [-1, 1]) > 0.95)
    assert jnp.all(metrics.episode_return[:, -1] > 0.9)


@pytest.mark.parametrize("algorithm", [purerl.reinforce, purerl.vpg])
def test_the_policy_learns_the_right_action_for_each_observation(algorithm):
    state, metrics = trained(algorithm, Probe(reward="match"))
    probabilities = learnt_probabilities(state, [-1, 1])
    assert jnp.all(probabilities[:, 0] < 0.05)
    assert jnp.all(probabilities[:, 1] > 0.95)
    assert jnp.all(metrics.episode_return[:, -1] > 0.9)


def swept(config, **values):
    configs, axes = purerl.sweep(config, **values)
    return jax.jit(jax.vmap(purerl.train, (None, axes)))(jax.random.key(0), configs)


def test_a_sweep_of_env_params_reaches_the_probe():
    config = purerl.vpg(
        Probe(length=0, limit=True), num_envs=2, rollout_length=12, total_steps=48, hidden=(5,)
    )
    limits, scales = [2, 4], [1.0, 3.0]
    values = {"env_params.max_steps_in_episode": limits, "env_params.reward_scale": scales}
    _, metrics = swept(config, **values)
    # The last keyword varies fastest.
    np.testing.assert_array_equal(metrics.episode_length, [[2, 2], [2, 2], [4, 4], [4, 4]])
    np.testing.assert_array_equal(metrics.episode_return, [[2, 2], [6, 6], [4, 4], [12, 12]])


def test_a_sweep_of_the_time_limit_reaches_cartpole():
    config = purerl.vpg("CartPole-v1", num_envs=4, rollout_length=24, total_steps=96, hidden=(5,))
    # No pole falls within 6 steps.
    _, metrics = swept(config, **{"env_params.max_steps_in_episode": [3, 6]})
    np.testing.assert_array_equal(metrics.episode_length, [[3], [6]])


def test_a_setting_of_a_sweep_is_the_setting_alone():
    make = functools.partial(
        purerl.vpg, Probe(reward="match", length=2), num_envs=4, rollout_length=8, hidden=(5,)
    )
    rates, discounts = [1e-3, 1e-2], [0.5, 0.9]
    train, config = jax.jit(purerl.train), make(total_steps=4 * 8 * 3)
    states, metrics = swept(config, policy_learning_rate=rates, discount=discounts)
    settings = [(rate, discount) for rate in rates for discount in discounts]
    for i, (rate, discount) in enumerate(settings):
        alone = make(total_steps=4 * 8 * 3, policy_learning_rate=rate, discount=discount)
        expected = comparable(*train(jax.random.key(0), alone))
        got = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], comparable(states, metrics))
        close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
        jax.tree.map(close, got, expected)
    policies = jax.tree.leaves(states.learner.policy)
    assert all(len(np.unique(np.asarray(leaf), axis=0)) == len(settings) for leaf in policies)


def comparable(state, metrics):
    return state.learner, state.envs, metrics
