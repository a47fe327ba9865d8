"""Running statistics against NumPy, and that rollout, learning and evaluation see the same."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe, ProbeParams

import purerl
from purerl.networks import normalization
from purerl.networks.network import parameters
from purerl.networks.normalization import (
    RewardNormalizer,
    initial_reward_normalizer,
    initial_stats,
)
from purerl.rollout import collect
from purerl.types import Transition

SMALL: dict[str, Any] = {"num_envs": 3, "rollout_length": 7, "total_steps": 21 * 4, "hidden": (8,)}


train = jax.jit(purerl.train)
update_stats = jax.jit(normalization.update_stats)
normalize_rewards = jax.jit(normalization.normalize_rewards)


def batches(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(5, 3, (size, 4, 2)).astype(np.float32) for size in (3, 1, 6)]


def merged(arrays):
    stats = initial_stats((2,))
    for array in arrays:
        stats = update_stats(stats, jnp.asarray(array))
    return stats


def test_statistics_of_several_batches_are_numpys_of_all():
    stats, everything = merged(batches()), np.concatenate(batches()).reshape(-1, 2)
    assert float(stats.count) == len(everything)
    np.testing.assert_allclose(stats.mean, everything.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats.std, everything.std(axis=0), rtol=1e-5)


def test_the_order_of_batches_makes_no_difference():
    forwards, backwards = merged(batches()), merged(batches()[::-1])
    np.testing.assert_allclose(forwards.mean, backwards.mean, rtol=1e-5)
    np.testing.assert_allclose(forwards.std, backwards.std, rtol=1e-5)


@pytest.mark.parametrize(("rows", "updates"), [(128, 50_000), (16, 300_000)])
@pytest.mark.parametrize("drift", [0.0, 5.0])
def test_statistics_far_from_0_are_numpys_of_all_that_was_seen(rows, updates, drift):
    rng, block = np.random.default_rng(0), 5000
    count, total, squares = 0, 0.0, 0.0  # of what lies beyond 1e4
    stats = initial_stats((1,))
    for start in range(0, updates, block):
        centre = 1e4 + drift * np.arange(start, start + block)[:, None, None] / updates
        x = (centre + rng.normal(size=(block, rows, 1))).astype(np.float32)
        stats = update_often(stats, x)
        beyond = x.astype(np.float64) - 1e4
        count += beyond.size
        total += beyond.sum()
        squares += (beyond**2).sum()
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    assert float(stats.count) == count
    np.testing.assert_allclose(stats.std, [std], rtol=1e-4)
    obs = np.array([[9999], [10000], [10002.5]], np.float32)
    want = (obs.astype(np.float64) - 1e4 - mean) / std
    np.testing.assert_allclose(stats.normalize(jnp.asarray(obs)), want, atol=1e-4)


@jax.jit
def update_often(stats, batches):
    return jax.lax.scan(lambda s, x: (normalization.update_stats(s, x), None), stats, batches)[0]


def test_the_count_is_exact_and_the_spread_stays_where_a_float_no_longer_moves():
    stats = update_stats(initial_stats(()), jnp.array([-1.0, 1.0]))
    many = (jnp.float32(2**30), jnp.float32(2**30))
    stats = eqx.tree_at(lambda stats: (stats.count, stats.squared_deviations), stats, many)
    stats = update_often(stats, jnp.tile(jnp.array([-2.0, 0.0, 0.0, 2.0]), (2**14, 1)))
    assert float(stats.count) == 2**30 + 2**16
    np.testing.assert_allclose(stats.std, np.sqrt(1 + 2**16 / (2**30 + 2**16)), rtol=1e-6)


def test_the_spread_of_a_first_batch_far_off_fades_as_it_should():
    rng, far = np.random.default_rng(0), 1e6 * np.eye(128, 1, dtype=np.float32)
    x = rng.normal(size=(20_000, 128, 1)).astype(np.float32)
    stats = update_often(update_stats(initial_stats((1,)), jnp.asarray(far)), x)
    everything = np.concatenate([far[None], x]).astype(np.float64).reshape(-1)
    np.testing.assert_allclose(stats.std, [everything.std()], rtol=1e-5)


@pytest.mark.parametrize("value", [0.1, 1e4 + 0.1, -3e7])
def test_what_never_changes_is_normalised_to_0(value):
    x = jnp.full((100, 3), value)
    stats = update_often(initial_stats((3,)), jnp.tile(x, (20, 1, 1)))
    np.testing.assert_array_equal(stats.normalize(x), np.zeros((100, 3)))


def test_statistics_of_nothing_leave_an_observation_as_it_is():
    obs = jnp.array([3.0, -7.0])
    np.testing.assert_array_equal(initial_stats((2,)).normalize(obs), obs)


def test_what_is_normalised_is_clipped():
    stats = update_stats(initial_stats(()), jnp.array([-1.0, 1.0]))
    np.testing.assert_allclose(stats.normalize(jnp.array([1e6, -1e6, 0.5])), [10, -10, 0.5])


# Rewards


def rollout_of(reward, terminated, truncated):
    reward, terminated, truncated = (jnp.asarray(x) for x in (reward, terminated, truncated))
    obs, action = jnp.zeros((*reward.shape, 1)), jnp.zeros(reward.shape, int)
    age = jnp.zeros_like(action)
    return Transition(obs, action, reward, reward, terminated, truncated, obs, age)


def by_hand(rollouts, discount):
    """The discounted return so far in each env's episode, a step at a time over all rollouts."""
    so_far, seen, scaled = np.zeros(rollouts[0][0].shape[1]), [], []
    for reward, terminated, truncated in rollouts:
        for t in range(len(reward)):
            so_far = discount * so_far + reward[t]
            seen.append(so_far.copy())
            so_far = np.where(terminated[t] | truncated[t], 0, so_far)
        scaled.append(np.clip(reward / np.sqrt(np.var(seen) + 1e-8), -10, 10))
    return so_far, np.array(seen), scaled


@pytest.fixture
def rollouts():
    rng = np.random.default_rng(1)
    return [
        (
            rng.normal(1, 2, (9, 3)).astype(np.float32),
            rng.random((9, 3)) < 0.2,
            rng.random((9, 3)) < 0.2,
        )
        for _ in range(4)
    ]


def test_the_reward_scale_is_that_of_a_slow_loop_over_rollouts(rollouts):
    so_far, seen, scaled = by_hand(rollouts, 0.9)
    scale = initial_reward_normalizer(3)
    for rollout, want in zip(rollouts, scaled, strict=True):
        scale, reward = normalize_rewards(scale, rollout_of(*rollout), jnp.float32(0.9))
        np.testing.assert_allclose(reward, want, rtol=1e-4)
    np.testing.assert_allclose(scale.discounted_return, so_far, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale.stats.mean, seen.mean(), rtol=1e-4)
    np.testing.assert_allclose(scale.stats.std, seen.std(), rtol=1e-4)
    assert float(scale.stats.count) == seen.size


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("at", [1, 3])
def test_a_reward_at_an_episodes_end_leaves_no_trace_in_the_next(end, at):
    # The end is within the rollout, or its last step, so that the next one begins anew.
    reward = np.zeros((4, 1), np.float32)
    reward[at] = 10
    flags = {"terminated": np.zeros((4, 1), bool), "truncated": np.zeros((4, 1), bool)}
    flags[end][at] = True
    scale, _ = normalize_rewards(
        initial_reward_normalizer(1), rollout_of(reward, **flags), jnp.float32(0.9)
    )
    np.testing.assert_array_equal(scale.discounted_return, [0])
    clean = RewardNormalizer(scale.discounted_return, initial_stats(()))
    nothing = rollout_of(np.zeros((4, 1), np.float32), *[np.zeros((4, 1), bool)] * 2)
    after, _ = normalize_rewards(clean, nothing, jnp.float32(0.9))
    assert float(after.stats.squared_deviations) == 0


def test_logged_returns_are_the_environments_own_where_rewards_are_scaled():
    config = purerl.ppo(
        Probe(length=3),
        normalize_reward=True,
        num_minibatches=3,
        env_params=ProbeParams(reward_scale=50.0),
        **SMALL,
    )
    state, metrics = train(jax.random.key(0), config)
    np.testing.assert_array_equal(metrics.episode_return, np.full(4, 150))
    assert float(metrics.value_loss[-1]) < 10  # of rewards of 50 it would be in the thousands
    assert float(state.reward_normalizer.stats.count) == 21 * 4


# Observations


@pytest.fixture(scope="module")
def config():
    return purerl.a2c("CartPole-v1", normalize_obs=True, **SMALL)


@pytest.fixture(scope="module")
def trained(config):
    return train(jax.random.key(0), config)


@jax.jit
def observed_step(state, config):
    """A training step, and the observations of its rollout."""
    rollout_key, _ = jax.random.split(jax.random.fold_in(state.key, state.step))
    rollout = collect(rollout_key, state.learner.policy, state.envs, config)[1]
    return purerl.train_step(state, config)[0], rollout.obs


def test_the_statistics_are_those_of_all_observations_of_the_rollouts(config, trained):
    end, _ = trained
    state, seen = jax.jit(purerl.init)(jax.random.key(0), config), []
    for _ in range(config.num_updates):
        state, obs = observed_step(state, config)
        seen.append(np.asarray(obs).reshape(-1, 4))
    everything = np.concatenate(seen)
    for network in (end.learner.policy, end.learner.baseline):
        np.testing.assert_allclose(network.stats.mean, everything.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(network.stats.std, everything.std(axis=0), rtol=1e-3, atol=1e-4)


def test_the_policy_that_acts_is_the_policy_that_learns(trained):
    _, metrics = trained
    assert np.all(np.abs(metrics.approx_kl) < 1e-6)


def test_a_network_normalises_the_observation_that_it_is_called_on(trained):
    @jax.jit
    def all_logits(policy):
        obs = policy.stats.mean + policy.stats.std * jnp.array([0.5, -1.0, 0.1, 2.0])
        by_hand = (obs - policy.stats.mean) / policy.stats.std
        return policy(obs).logits, policy.module(by_hand).logits, policy.module(obs).logits

    found, expected, of_raw = all_logits(trained[0].learner.policy)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not np.allclose(found, of_raw)


def test_evaluation_normalises_too(config, trained):
    settings: dict[str, Any] = {"num_episodes": 4, "max_steps": 40, "greedy": False}

    @jax.jit
    def both(key, policy):
        def by_hand(obs):
            return policy.module((obs - policy.stats.mean) / policy.stats.std)

        return [purerl.evaluate(key, each, config, **settings) for each in (policy, by_hand)]

    ours, theirs = both(jax.random.key(5), trained[0].learner.policy)
    np.testing.assert_array_equal(ours.episode_return, theirs.episode_return)


def test_statistics_are_no_parameters(trained):
    state, _ = trained
    policy = state.learner.policy
    sizes = [leaf.size for leaf in jax.tree.leaves(parameters(policy))]
    assert sorted(sizes) == sorted([4 * 8, 8, 8 * 2, 2])
    plain = jax.eval_shape(
        purerl.init, jax.random.key(0), purerl.a2c("CartPole-v1", **SMALL)
    ).learner
    assert jax.tree.structure(state.learner.policy_opt_state) == jax.tree.structure(
        plain.policy_opt_state
    )


def test_each_seed_has_statistics_of_its_own_and_they_travel_with_its_policy(tmp_path):
    config = purerl.ppo("CartPole-v1", normalize_obs=True, num_minibatches=3, **SMALL)
    result = purerl.run(config, 2, tmp_path, evaluation_episodes=0, progress=False)
    first, second = result.policy(0).network, result.policy(1).network
    assert first.stats is not None
    assert second.stats is not None
    assert not np.allclose(first.stats.mean, second.stats.mean)
    assert float(first.stats.count) == config.env_steps
    assert first.stats.mean.shape == (4,)
    assert np.isfinite(first(jnp.ones(4)).logits).all()
