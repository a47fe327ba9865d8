"""Environments by name and brought by the user, and how they are read."""

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe

import purerl
from purerl import envs


@dataclasses.dataclass(frozen=True)
class Counter:
    """Two-step episodes, with no parameters, no base class and integers for numbers.

    It declares an observation of another shape and dtype than it returns.
    """

    declared_shape: tuple[int, ...] = (7, 7)

    def observation_space(self, params):
        return purerl.Box(np.zeros(self.declared_shape), np.ones(self.declared_shape), (7, 7))

    def action_space(self, params):
        return purerl.Discrete(3)

    def reset(self, key, params):
        return jnp.array([0, 1], jnp.uint8), jnp.int32(0)

    def step(self, key, state, action, params):
        time = state + 1
        done = time >= 2
        final_obs = jnp.stack([time, 1]).astype(jnp.uint8)
        obs = jnp.where(done, self.reset(key, params)[0], final_obs)
        info = {"final_observation": final_obs, "discount": 1.0}
        return obs, jnp.where(done, 0, time), jnp.int32(3), done, jnp.array(False), info


def train(config):
    return jax.jit(purerl.train)(jax.random.key(0), config)


@pytest.mark.parametrize("name", ["CartPole-v1", "probes:Probe"])
def test_the_same_name_is_the_same_object(name):
    assert purerl.make_env(name)[0] is purerl.make_env(name)[0]


def test_other_arguments_make_another_environment():
    env, _ = purerl.make_env("probes:Probe", length=3)
    assert env is not purerl.make_env("probes:Probe", length=4)[0]
    assert env is purerl.make_env("probes:Probe", length=3)[0]


def test_an_import_path_makes_the_environment_with_its_arguments_and_parameters():
    env, params = purerl.make_env("probes:Probe", length=3, reward="action")
    assert env == Probe(length=3, reward="action")
    assert params == Probe().default_params


def test_make_env_gives_gymnax_default_parameters():
    env, params = purerl.make_env("CartPole-v1")
    assert params == env.default_params
    assert params.max_steps_in_episode == 500


@pytest.mark.parametrize("path", ["probes:Prob", "no_such_module:Env"])
def test_an_import_path_that_leads_nowhere_is_refused_in_one_line(path):
    with pytest.raises(ValueError, match="cannot be imported") as refusal:
        purerl.make_env(path)
    assert path in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_env_names_are_sorted_and_can_be_made():
    names = purerl.env_names()
    assert list(names) == sorted(names)
    assert "CartPole-v1" in names


def test_an_environment_without_default_params_trains():
    config = purerl.vpg(Counter(), num_envs=2, rollout_length=4, total_steps=16)
    assert config.env_params is None
    _, metrics = train(config)
    np.testing.assert_array_equal(metrics.episode_return, [6, 6])
    np.testing.assert_array_equal(metrics.episode_length, [2, 2])


def test_a_named_environment_trains_by_import_path():
    config = purerl.vpg("probes:Probe", num_envs=2, rollout_length=4, total_steps=16)
    np.testing.assert_array_equal(train(config)[1].episode_return, [1, 1])


def test_integer_observations_and_rewards_are_read_as_float32():
    obs, state = envs.reset(jax.random.key(0), Counter(), None)
    step = envs.step(jax.random.key(0), Counter(), state, jnp.int32(0), None)
    for number in (obs, step.obs, step.reward, step.next_obs):
        assert number.dtype == jnp.float32
    assert float(step.reward) == 3


def test_the_true_successor_is_kept_apart_from_the_reset_observation():
    _, state = envs.reset(jax.random.key(0), Counter(), None)
    for _ in range(2):
        step = envs.step(jax.random.key(0), Counter(), state, jnp.int32(0), None)
        state = step.state
    assert bool(step.terminated)
    np.testing.assert_array_equal(step.next_obs, [2, 1])
    np.testing.assert_array_equal(step.obs, [0, 1])


def test_the_shape_of_an_observation_comes_from_reset_not_from_the_declared_space():
    spec = envs.check_env(Counter(), None)
    assert spec.obs_space.shape == (2,)
    assert spec.action_space == purerl.Discrete(3)


@pytest.mark.parametrize(("env", "limit"), [(Probe(), 5), (Counter(), None)])
def test_the_time_limit_is_that_of_the_default_parameters(env: Any, limit):
    assert envs.check_env(env, getattr(env, "default_params", None)).max_steps == limit


@dataclasses.dataclass(frozen=True)
class SaysDiscrete(Counter):
    def observation_space(self, params):
        return purerl.Discrete(7)


def test_an_observation_declared_discrete_that_is_a_vector_is_read_as_one():
    config = purerl.vpg(SaysDiscrete(), num_envs=2, rollout_length=4, total_steps=16)
    assert config.env_spec.obs_space.shape == (2,)
    assert np.isfinite(train(config)[1].policy_loss).all()


@pytest.mark.parametrize(
    ("limit", "found"), [(7, 7), (np.float32(7), 7), (np.array([3, 9]), 9), (np.inf, None)]
)
def test_the_time_limit_of_parameters_is_the_longest_that_they_set(limit, found):
    params = Probe().default_params._replace(max_steps_in_episode=limit)
    assert envs.time_limit(params) == found


@pytest.mark.parametrize("name", ["Catch-bsuite", "FourRooms-misc"])
def test_gymnax_environments_that_declare_other_dtypes_pass_the_check(name):
    env, params = purerl.make_env(name)
    obs = jax.eval_shape(env.reset, jax.random.key(0), params)[0]
    assert envs.check_env(env, params).obs_space.shape == obs.shape


def test_an_environment_is_traced_once():
    """By its checks, by training mapped or not, and by evaluation."""
    traced, once = collections.Counter(), {"reset": 2, "step": 1}  # this `step` calls `reset`

    class Counting(Probe):
        def reset(self, key, params=None):
            traced["reset"] += 1
            return super().reset(key, params)

        def step(self, key, state, action, params=None):
            traced["step"] += 1
            return super().step(key, state, action, params)

    config = purerl.ppo(Counting(), num_envs=2, rollout_length=4, total_steps=16)
    assert traced == once
    jax.jit(jax.vmap(purerl.train, (0, None))).trace(purerl.seed_keys(0, 3), config)
    state = jax.eval_shape(purerl.train, jax.random.key(0), config)[0]
    jax.eval_shape(
        lambda policy: purerl.evaluate(
            jax.random.key(0), policy, config, num_episodes=2, max_steps=3
        ),
        state.learner.policy,
    )
    assert traced == once
