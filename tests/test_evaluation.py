"""Evaluation plays whole episodes, and plays them as a plain loop would."""

import contextlib
import logging
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe

import purerl
from purerl.seeds import EVALUATE, stream_key

compiled = jax.jit(purerl.evaluate, static_argnames=("num_episodes", "max_steps", "greedy"))


def evaluate(key, policy, config, *, max_steps=None, **how):
    """`purerl.evaluate` compiled, where the limit of a config is traced and has to be given."""
    max_steps = config.time_limit if max_steps is None else max_steps
    return compiled(key, policy, config, max_steps=max_steps, **how)


@contextlib.contextmanager
def count_compiles():
    """The messages of jax about what it compiles meanwhile."""
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


class Leaning(eqx.Module):
    """A policy that leans towards action 1, whatever it sees."""

    lean: jax.Array

    def __call__(self, obs):
        return purerl.Categorical(jnp.stack([jnp.float32(0), self.lean]))


class NoLimit(NamedTuple):
    reward_scale: float = 1.0


class Untimed(Probe):
    """A probe whose parameters name no time limit."""

    @property
    def default_params(self):
        return NoLimit()


def a_config(env):
    return purerl.vpg(env, num_envs=2, rollout_length=8, total_steps=16)


def play_by_hand(key, policy, config, num_episodes, *, max_steps, greedy):
    """Play one episode after another in Python: returns, lengths, and how many did not end."""
    env, params = config.env, config.env_params

    def one(policy, key, obs, state):
        action_key, env_key = jax.random.split(key)
        distribution = policy(obs)
        action = distribution.mode() if greedy else distribution.sample(action_key)
        return env.step(env_key, state, action, params)[:5]

    one, reset = jax.jit(one), jax.jit(env.reset)
    returns, lengths, unfinished = [], [], 0
    for episode_key in jax.random.split(stream_key(key, EVALUATE), num_episodes):
        reset_key, play_key = jax.random.split(episode_key)
        obs, state = reset(reset_key, params)
        total, length, done = 0.0, 0, False
        for step_key in jax.random.split(play_key, max_steps):
            obs, state, reward, terminated, truncated = one(policy, step_key, obs, state)
            total, length = total + float(reward), length + 1
            done = bool(terminated) or bool(truncated)
            if done:
                break
        returns.append(total)
        lengths.append(length)
        unfinished += not done
    return returns, lengths, unfinished


@pytest.mark.parametrize(("greedy", "max_steps"), [(True, 9), (False, 20)])
def test_evaluation_equals_a_hand_run_loop(greedy, max_steps):
    config = a_config("CartPole-v1")
    policy = jax.jit(purerl.init)(jax.random.key(1), config).learner.policy
    key, settings = jax.random.key(2), {"max_steps": max_steps, "greedy": greedy}
    result = evaluate(key, policy, config, num_episodes=6, **settings)
    returns, lengths, unfinished = play_by_hand(key, policy, config, 6, **settings)
    np.testing.assert_array_equal(result.episode_return, returns)
    np.testing.assert_array_equal(result.episode_length, lengths)
    assert int(result.num_unfinished) == unfinished
    assert 0 < unfinished < 6, "the test should see both kinds"


def test_max_steps_defaults_to_the_time_limit_and_a_truncated_episode_is_finished():
    config = a_config(Probe(length=0, limit=True))
    result = purerl.evaluate(jax.random.key(0), Leaning(jnp.zeros(())), config, num_episodes=3)
    np.testing.assert_array_equal(result.episode_length, [5, 5, 5])
    assert int(result.num_unfinished) == 0


def test_what_follows_the_first_episode_is_not_counted():
    config = a_config(Probe(length=3))
    policy = Leaning(jnp.zeros(()))
    result = evaluate(jax.random.key(0), policy, config, num_episodes=3, max_steps=20)
    np.testing.assert_array_equal(result.episode_return, [3, 3, 3])
    np.testing.assert_array_equal(result.episode_length, [3, 3, 3])


def test_greedy_takes_the_mode_and_sampling_does_not():
    config = a_config(Probe(reward="action", length=5))
    policy = Leaning(jnp.float32(0.01))
    greedy = evaluate(jax.random.key(0), policy, config, num_episodes=16)
    sampled = evaluate(jax.random.key(0), policy, config, num_episodes=16, greedy=False)
    np.testing.assert_array_equal(greedy.episode_return, np.full(16, 5))
    assert 1 < float(sampled.episode_return.mean()) < 4


def test_max_steps_is_required_where_there_is_no_time_limit():
    config = a_config(Untimed(length=5))
    with pytest.raises(ValueError, match=r"max_steps is required.*Untimed") as refusal:
        evaluate(jax.random.key(0), Leaning(jnp.zeros(())), config, num_episodes=2)
    assert "\n" not in str(refusal.value)


def test_episodes_that_max_steps_cuts_off_are_counted_as_unfinished():
    config = a_config(Untimed(length=5))
    policy = Leaning(jnp.zeros(()))
    cut = evaluate(jax.random.key(0), policy, config, num_episodes=4, max_steps=4)
    whole = evaluate(jax.random.key(0), policy, config, num_episodes=4, max_steps=5)
    assert (int(cut.num_unfinished), int(whole.num_unfinished)) == (4, 0)
    np.testing.assert_array_equal(cut.episode_length, [4] * 4)


@pytest.mark.parametrize("bad", [{"num_episodes": 0}, {"num_episodes": -1}, {"max_steps": 0}])
def test_sizes_that_are_no_counts_are_refused(bad):
    config = a_config(Probe())
    with pytest.raises(ValueError, match=rf"{next(iter(bad))} = .*at least 1"):
        evaluate(jax.random.key(0), Leaning(jnp.zeros(())), config, **({"num_episodes": 2} | bad))


def test_the_same_key_gives_the_same_episodes_and_another_gives_others():
    config = a_config(Probe(reward="obs"))
    policy = Leaning(jnp.zeros(()))

    def returns(seed):
        return evaluate(jax.random.key(seed), policy, config, num_episodes=32).episode_return

    assert returns(0).shape == (32,)
    np.testing.assert_array_equal(returns(0), returns(0))
    assert not np.array_equal(returns(0), returns(1))


def test_the_policies_of_many_seeds_are_evaluated_under_vmap():
    config = a_config(Probe(reward="action", length=5))
    policies = Leaning(jnp.array([-1.0, 1.0, -1.0]))

    def of_seed(key, policy):
        return purerl.evaluate(key, policy, config, num_episodes=4)

    result = jax.jit(jax.vmap(of_seed))(purerl.seed_keys(0, 3), policies)
    np.testing.assert_array_equal(result.episode_return, [[0] * 4, [5] * 4, [0] * 4])
    assert result.num_unfinished.shape == (3,)


def test_calls_that_are_not_within_jit_compile_once_for_a_config():
    config = purerl.vpg("CartPole-v1", num_envs=2, rollout_length=8, total_steps=16)
    again = purerl.vpg("CartPole-v1", num_envs=2, rollout_length=8, total_steps=16)
    state = purerl.init(jax.random.key(0), config)
    how: Any = {"num_episodes": 3, "max_steps": 20}
    first = purerl.evaluate(jax.random.key(1), state.learner.policy, config, **how)
    purerl.evaluate(jax.random.key(1), Leaning(jnp.float32(0)), config, **how)
    keys, leans = [jax.random.key(seed) for seed in range(3)], [jnp.float32(x) for x in range(3)]
    with jax.log_compiles(), count_compiles() as compiled_programs:
        for key, lean in zip(keys, leans, strict=True):
            purerl.evaluate(key, state.learner.policy, again, **how)
            purerl.evaluate(key, Leaning(lean), again, **how)
    assert not [line for line in compiled_programs if "Compiling" in line], compiled_programs
    expected = compiled(jax.random.key(1), state.learner.policy, config, **how)
    np.testing.assert_array_equal(first.episode_return, expected.episode_return)
