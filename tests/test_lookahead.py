"""REINFORCE's weights: they depend on what was known when a step was taken, not on what came."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probes import Probe, ProbeParams
from small import SIZES

import purerl
from purerl.algorithms import monte_carlo_estimate
from purerl.rollout import EnvCarry, collect, reset_envs
from purerl.types import Transition

T, N = 9, 2


# The rule


def rollout_of(terminated, truncated, age):
    zeros = jnp.zeros(terminated.shape)
    obs, action = jnp.zeros((*terminated.shape, 1)), jnp.zeros(terminated.shape, int)
    terminated, truncated = jnp.asarray(terminated), jnp.asarray(truncated)
    return Transition(obs, action, zeros, zeros + 1, terminated, truncated, obs, age)


def ages_by_hand(ends, age):
    """The age of each step, where the first of each environment has the given one."""
    ages = []
    for end in ends:
        ages.append(age)
        age = np.where(end, 0, age + 1)
    return np.stack(ages)


def weights_by_hand(ages, lookahead, limit):
    weights = np.zeros(ages.shape)
    for t, n in np.ndindex(*ages.shape):
        # Steps that an episode may still have, as it looks from here, are all in the rollout.
        ahead = lookahead if limit is None else min(lookahead, limit - ages[t, n])
        weights[t, n] = t + ahead <= len(ages)
    return weights


@st.composite
def cases(draw):
    ends = np.array(draw(st.lists(st.booleans(), min_size=T * N, max_size=T * N))).reshape(T, N)
    is_truncated = np.array(draw(st.lists(st.booleans(), min_size=T * N, max_size=T * N)))
    limit = draw(st.sampled_from([None, 1, 4, 7, 20, np.inf]))
    first = draw(st.integers(0, 12 if limit in (None, np.inf) else int(limit) - 1))
    return ends, is_truncated.reshape(T, N), limit, first, draw(st.sampled_from([None, 3]))


@functools.cache
def hyper():
    return purerl.reinforce(Probe()).hyper


traced = jax.jit(monte_carlo_estimate, static_argnames="lookahead")


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_the_weight_is_that_of_a_slow_loop_over_the_steps(case):
    ends, is_truncated, limit, first, lookahead = case
    ages = ages_by_hand(ends, np.full(N, first))
    rollout = rollout_of(ends & ~is_truncated, ends & is_truncated, jnp.asarray(ages, jnp.int32))
    dtype = np.float32 if limit == np.inf or first % 2 else np.int32
    limit = None if limit is None else dtype(limit)
    got = traced(rollout, None, None, hyper(), lookahead=lookahead, time_limit=limit)
    expected = weights_by_hand(ages, 5 if lookahead is None else lookahead, limit)
    np.testing.assert_array_equal(got.weight, expected)
    assert expected[0].all()  # so that there is always something to learn from


@jax.jit
def two_rollouts(key, config):
    """Two rollouts one after another, and their estimates."""
    first_key, second_key = jax.random.split(key)
    policy = purerl.init(key, config).learner.policy
    carry = reset_envs(key, config)
    carry, first, _ = collect(first_key, policy, carry, config)
    _, second, _ = collect(second_key, policy, carry, config)
    rollouts = [first, second]
    return rollouts, [config.estimate(each, None, None, config.hyper) for each in rollouts]


def test_ages_count_on_over_rollouts_and_begin_anew_at_either_end():
    config = purerl.reinforce("CartPole-v1", num_envs=4, rollout_length=40, hidden=(4,))
    limited = config.env_params.replace(max_steps_in_episode=np.int32(15))
    config = dataclasses.replace(config, env_params=limited)
    rollouts, estimates = two_rollouts(jax.random.key(0), config)
    terminated, truncated, ages, weights = (
        np.concatenate(parts)
        for parts in zip(
            *[
                (rollout.terminated, rollout.truncated, rollout.age, estimate.weight)
                for rollout, estimate in zip(rollouts, estimates, strict=True)
            ],
            strict=True,
        )
    )
    assert terminated.any()
    assert truncated.any()
    expected = ages_by_hand(terminated | truncated, np.zeros(4, int))
    np.testing.assert_array_equal(ages, expected)
    assert ages.dtype == np.int32
    assert (ages[40] > 0).any()
    for half in (slice(0, 40), slice(40, 80)):
        np.testing.assert_array_equal(weights[half], weights_by_hand(expected[half], 20, 15))


def test_each_setting_of_a_sweep_has_the_weights_of_its_own_limit():
    config = purerl.reinforce(
        Probe(length=0, limit=True), num_envs=2, rollout_length=12, lookahead=6, hidden=(4,)
    )
    limits = [3.0, 5.0, 100.0]
    configs, axes = purerl.sweep(config, **{"env_params.max_steps_in_episode": limits})  # pyright: ignore[reportArgumentType]
    both = jax.vmap(two_rollouts, (None, axes))(jax.random.key(0), configs)
    (rollout, _), (estimate, _) = both
    for i, limit in enumerate(limits):
        expected = weights_by_hand(np.asarray(rollout.age[i]), 6, limit)
        np.testing.assert_array_equal(estimate.weight[i], expected)
    assert len({estimate.weight[i].sum().item() for i in range(3)}) == 3


def test_how_an_episode_went_on_changes_no_weight_of_what_was_before():
    ends = np.zeros((T, 2), bool)
    ends[6, 1] = True  # the same two episodes, of which one ends
    ages = jnp.asarray(ages_by_hand(ends, np.zeros(2, int)), jnp.int32)
    rollout = rollout_of(jnp.asarray(ends), jnp.zeros((T, 2), bool), ages)
    weight = traced(rollout, None, None, hyper(), lookahead=4).weight
    np.testing.assert_array_equal(weight[:7, 0], weight[:7, 1])


def of_rewards(rollout, value, next_value, hyper):
    """An estimate from before there was a look-ahead."""
    assert value is None
    return purerl.Estimate(rollout.reward, rollout.reward, jnp.ones_like(rollout.reward))


def test_an_estimate_of_ones_own_is_called_as_it_was_and_needs_no_lookahead():
    own = purerl.REINFORCE._replace(name="own", estimate=of_rewards)
    config = purerl.reinforce(Probe(), algorithm=own, **SIZES)
    assert config.estimate is of_rewards
    jax.eval_shape(purerl.train, jax.random.key(0), config)


# What is learnt


@dataclasses.dataclass(frozen=True)
class Fork:
    """The first action decides: 1 pays 1 and ends; 0 pays 2, and 30 idle steps follow.

    With `late` the 2 are paid at the last of them. `default_params` declare the limit, or None.
    """

    default_params: ProbeParams | None = None
    late: bool = False

    def observation_space(self, params):
        return purerl.Box(0.0, 1.0, (2,))

    def action_space(self, params):
        return purerl.Discrete(2)

    def observe(self, time):
        return jnp.stack([time == 0, time > 0]).astype(jnp.float32)

    def reset(self, key, params):
        return self.observe(jnp.int32(0)), jnp.int32(0)

    def step(self, key, time, action, params):
        is_short = (time == 0) & (action == 1)
        is_last = time >= 30
        pays = is_last if self.late else time == 0
        reward = jnp.where(is_short, 1.0, jnp.where(pays, 2.0, 0.0))
        ends = is_short | is_last
        next_time = jnp.where(ends, 0, time + 1)
        # With a limit declared, it is the limit that ends a long episode.
        has_limit = self.default_params is not None
        terminated, truncated = (is_short, is_last) if has_limit else (ends, jnp.array(False))
        info = {"final_observation": self.observe(time + 1)}
        return self.observe(next_time), next_time, reward, terminated, truncated, info


LIMITED = ProbeParams(max_steps_in_episode=31)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "sizes"),
    [
        (Fork(), {"rollout_length": 32}),
        (Fork(LIMITED, late=True), {}),
        (Fork(LIMITED, late=True), {"rollout_length": 128}),
    ],
    ids=["paid at once", "paid late", "paid late, longer"],
)
def test_reinforce_learns_to_take_the_better_and_longer_episode(env, sizes):
    steps = 16 * sizes.get("rollout_length", 62) * 150
    how = {"policy_learning_rate": 1e-2, "total_steps": steps, "hidden": (8,)}
    config = purerl.reinforce(env, num_envs=16, **how, **sizes)
    assert config.num_updates == 150
    states, _ = purerl.train_seeds(purerl.seed_keys(0, 8), config)
    first = jax.vmap(lambda policy: policy(env.observe(jnp.int32(0))).mode())
    np.testing.assert_array_equal(first(states.learner.policy), np.zeros(8))


class Balancing(eqx.Module):
    """A solved CartPole: it pushes to where the pole falls."""

    weight: jax.Array

    def __call__(self, obs):
        return purerl.Categorical(jnp.array([0.0, 1e4]) * (obs @ self.weight))


def balancing(key, obs_space, action_space):
    return Balancing(jnp.array([0.1, 0.5, 4.0, 1.0]))


def test_the_beginnings_of_long_episodes_are_kept_almost_half_as_often_as_their_ends():
    limit = 500
    config = purerl.reinforce(
        "CartPole-v1", num_envs=limit, rollout_length=1000, policy=balancing, total_steps=500_000
    )

    @jax.jit
    def of_all_phases(key, config):
        carry = reset_envs(key, config)
        phases = jnp.arange(limit)  # environment i has played i steps of its episode

        def aged(carry: EnvCarry):
            return carry.state.time, carry.episode_length

        carry = eqx.tree_at(aged, carry, (phases.astype(carry.state.time.dtype), phases))
        policy = purerl.init(key, config).learner.policy
        _, rollout, _ = collect(key, policy, carry, config)
        return rollout, config.estimate(rollout, None, None, config.hyper).weight

    rollout, weight = of_all_phases(jax.random.key(0), config)
    assert not rollout.terminated.any()  # it is solved
    age, weight = np.asarray(rollout.age), np.asarray(weight)
    young, old = weight[age <= 25].mean(), weight[age >= limit - 25].mean()
    assert young >= 0.45 * old
    assert old > 0.95
