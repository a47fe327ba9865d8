"""Metrics are what a hand count gives, small, and NaN where there is nothing to report."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe, ProbeParams

import purerl
from purerl.compute.trees import divide, pack
from purerl.rollout import sum_updates

train = jax.jit(purerl.train)
SIZES: dict[str, Any] = {"num_envs": 3, "rollout_length": 10, "total_steps": 60}  # 2 updates


@jax.jit
def one_step(policy, config, key, obs, env_state):
    action_key, env_key = jax.random.split(key)
    action = policy(obs).sample(action_key)
    return config.env.step(env_key, env_state, action, config.env_params)[:5]


def play_by_hand(state, config, totals, lengths):
    """One rollout step by step in Python, with training's keys: the episodes that end in it."""
    shape = (config.rollout_length, config.num_envs)
    rollout_key, _ = jax.random.split(jax.random.fold_in(state.key, state.step))
    keys = jax.random.split(rollout_key, shape)
    obs, env_states = list(state.envs.obs), unstack(state.envs.state, config.num_envs)
    returns, ended_lengths = [], []
    for t in range(config.rollout_length):
        for n in range(config.num_envs):
            obs[n], env_states[n], reward, terminated, truncated = one_step(
                state.learner.policy, config, keys[t, n], obs[n], env_states[n]
            )
            totals[n] += float(reward)
            lengths[n] += 1
            if terminated or truncated:
                returns.append(totals[n])
                ended_lengths.append(lengths[n])
                totals[n], lengths[n] = 0.0, 0
    return returns, ended_lengths


def unstack(tree, size):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(size)]


def test_episode_returns_and_lengths_equal_a_hand_run_across_rollouts():
    # Rollouts are shorter than most episodes, so that sums must be carried over their edges.
    config = purerl.vpg("CartPole-v1", num_envs=2, rollout_length=12, total_steps=96)
    train_step = jax.jit(purerl.train_step)
    state = jax.jit(purerl.init)(jax.random.key(3), config)
    totals, lengths, counts = [0.0, 0.0], [0, 0], []
    for _ in range(config.num_updates):
        returns, ended_lengths = play_by_hand(state, config, totals, lengths)
        state, metrics = train_step(state, config)
        counts.append(len(returns))
        assert int(metrics.num_episodes) == len(returns)
        mean = np.mean(returns) if returns else np.nan
        np.testing.assert_allclose(metrics.episode_return, mean, rtol=1e-6)
        mean = np.mean(ended_lengths) if ended_lengths else np.nan
        np.testing.assert_allclose(metrics.episode_length, mean, rtol=1e-6)
    assert max(counts) > 0, "the test should see an episode end"


@pytest.mark.parametrize("algorithm", [purerl.vpg, purerl.reinforce])
def test_the_episode_return_is_the_envs_own_sum_whatever_learning_makes_of_it(algorithm):
    config = algorithm(
        Probe(length=0, limit=True),
        discount=0.5,
        normalize_advantage=True,
        env_params=ProbeParams(reward_scale=10.0),
        **SIZES,
    )
    _, metrics = train(jax.random.key(0), config)
    np.testing.assert_array_equal(metrics.episode_return, [50, 50])
    np.testing.assert_array_equal(metrics.episode_length, [5, 5])
    np.testing.assert_array_equal(metrics.num_episodes, [6, 6])


def test_episode_means_are_nan_not_0_before_the_first_episode_ends():
    params = ProbeParams(max_steps_in_episode=15)
    config = purerl.vpg(Probe(length=0, limit=True), env_params=params, **SIZES)
    _, metrics = train(jax.random.key(0), config)
    np.testing.assert_array_equal(metrics.num_episodes, [0, 3])
    np.testing.assert_array_equal(metrics.episode_return, [np.nan, 15])
    np.testing.assert_array_equal(metrics.episode_length, [np.nan, 15])


def test_without_a_baseline_its_metrics_are_nan_and_the_policys_are_not():
    config = purerl.reinforce(Probe(length=0, limit=True), **SIZES)
    _, metrics = train(jax.random.key(0), config)
    for name in ("value_loss", "explained_variance", "baseline_grad_norm"):
        assert np.isnan(getattr(metrics, name)).all()
    for name in ("policy_loss", "entropy", "approx_kl", "clip_fraction", "policy_grad_norm"):
        assert np.isfinite(getattr(metrics, name)).all()


def test_entropy_and_kl_start_where_an_almost_uniform_policy_has_them():
    config = purerl.vpg(Probe(length=0, limit=True), **SIZES)
    _, metrics = train(jax.random.key(0), config)
    np.testing.assert_allclose(metrics.entropy[0], np.log(2), rtol=1e-3)
    np.testing.assert_allclose(metrics.approx_kl[0], 0, atol=1e-6)
    assert float(metrics.clip_fraction[0]) == 0


def test_nothing_of_the_rollouts_size_leaves_a_step():
    config = purerl.vpg(Probe(), num_envs=5, rollout_length=7, total_steps=35 * 12, log_every=3)
    state = jax.eval_shape(purerl.init, jax.random.key(0), config)
    after, metrics = jax.eval_shape(purerl.train_step, state, config)
    assert {leaf.shape for leaf in jax.tree.leaves(metrics)} == {()}
    assert [leaf.shape for leaf in jax.tree.leaves(after)] == [
        leaf.shape for leaf in jax.tree.leaves(state)
    ]
    assert not any(7 in leaf.shape or 35 in leaf.shape for leaf in jax.tree.leaves(after))

    _, records = jax.eval_shape(lambda s, c: purerl.advance(s, c, 12), state, config)
    assert {leaf.shape for leaf in jax.tree.leaves(records)} == {(4,)}


def some_metrics(**given):
    """Metrics of three updates: 0 but for what is given."""
    names = purerl.Metrics.__dataclass_fields__
    return purerl.Metrics(**{name: jnp.asarray(given.get(name, [0.0] * 3)) for name in names})


@jax.jit
def summarized(metrics):
    return divide(sum_updates(pack(metrics)))


def test_a_record_weights_episode_means_by_their_episodes():
    record = summarized(
        some_metrics(
            num_episodes=[1, 0, 3],
            episode_return=[10.0, np.nan, 2.0],
            episode_length=[4.0, np.nan, 8.0],
            entropy=[1.0, 2.0, 6.0],
        )
    )
    assert float(record.episode_return) == (10 + 3 * 2) / 4
    assert float(record.episode_length) == (4 + 3 * 8) / 4
    assert int(record.num_episodes) == 4
    assert float(record.entropy) == 3


def test_a_record_of_no_episodes_is_nan_and_keeps_what_is_defined():
    record = summarized(
        some_metrics(
            num_episodes=[0, 0, 0],
            episode_return=[np.nan] * 3,
            entropy=[np.nan, 1.0, 3.0],
            value_loss=[np.nan] * 3,
        )
    )
    assert np.isnan(record.episode_return)
    assert np.isnan(record.value_loss)
    assert int(record.num_episodes) == 0
    assert float(record.entropy) == 2


def test_env_steps_are_a_python_int_past_32_bits():
    config = purerl.vpg(Probe(), total_steps=10**12)
    assert type(config.env_steps) is int
    assert 10**12 <= config.env_steps < 10**12 + config.env_steps_per_update


def test_env_steps_are_a_python_int_also_for_sizes_from_numpy():
    sizes: Any = {"num_envs": np.int32(1000), "rollout_length": np.int32(1000)}
    config = purerl.vpg(Probe(), total_steps=10**12, **sizes)
    assert type(config.env_steps) is int
    assert config.env_steps == 10**12
