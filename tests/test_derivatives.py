"""Derivatives through whole training, forward and reverse, against differences in float64."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import Probe

import purerl
from purerl.compute import derivatives
from purerl.compute.rows import map_rows_where
from purerl.config.optimizers import clip_by_norm
from purerl.config.settings import HYPER_DEFAULTS

STEP = 1e-6
SIZES: Any = {"num_envs": 2, "rollout_length": 8, "hidden": (4,), "total_steps": 2 * 8 * 4}
NAMES = list(HYPER_DEFAULTS)
METRICS = ["policy_loss", "value_loss", "entropy", "explained_variance", "approx_kl"]
METRICS += ["clip_fraction", "policy_grad_norm", "baseline_grad_norm"]


@dataclasses.dataclass(frozen=True)
class Steered:
    """A point that actions push; the reward is smooth. From `breaks_at` on, it is NaN."""

    breaks_at: int = 10**6

    def observation_space(self, params):
        return purerl.Box(-np.inf, np.inf, (2,))

    def action_space(self, params):
        return purerl.Box(-np.inf, np.inf, (1,))

    def reset(self, key, params):
        x = jax.random.normal(key, (2,))
        return x, (x, jnp.int32(0), jnp.int32(0))

    def step(self, key, state, action, params):
        x, time, total = state
        moved = x + 0.1 * jnp.concatenate([action, jnp.sin(x[:1])])
        reward = jnp.where(total >= self.breaks_at, jnp.nan, -jnp.sum(moved**2))
        end = time >= 4
        obs, (_, start, _) = self.reset(key, params)
        obs = jnp.where(end, obs, moved)
        state = obs, jnp.where(end, start, time + 1), total + 1
        final = {"final_observation": moved}
        return obs, state, reward, jnp.bool_(False), end, final


def at(config, values):
    """The config with these hyperparameters, in the order of `NAMES`."""
    return eqx.tree_at(
        lambda config: [getattr(config.hyper, name) for name in NAMES], config, list(values)
    )


def values_of(config):
    return jnp.array([float(getattr(config.hyper, name)) for name in NAMES])


def size_of(learner):
    networks = eqx.filter((learner.policy, learner.baseline), eqx.is_inexact_array)
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(networks))


def after_updates(config):
    """One number after one, two and four updates, from all metrics; one from the networks."""
    weights = jnp.arange(1.0, len(METRICS) + 1)

    def measure(values):
        state, metrics = purerl.train(jax.random.key(0), at(config, values))
        each = jnp.stack([getattr(metrics, name) for name in METRICS], axis=1) @ weights
        return jnp.append(each[jnp.array([0, 1, 3])], size_of(state.learner))

    return measure


def differences(measure, values):
    """Central differences, all of them in one program."""
    moves = jnp.where(jnp.isfinite(values), STEP, 0) * jnp.eye(len(values))
    values = jnp.where(jnp.isfinite(values), values, 1e6)
    moved = jax.jit(jax.vmap(measure))(jnp.concatenate([values + moves, values - moves]))
    ahead, behind = jnp.split(moved, 2)
    return ((ahead - behind) / (2 * STEP)).T


def assert_right(measure, values):
    expected = differences(measure, values)
    assert expected.dtype == jnp.float64
    forward = jax.jit(jax.jacfwd(measure))(values)
    reverse = jax.jit(jax.jacrev(measure))(values)
    smallest = 1e-5 * float(jnp.max(jnp.abs(expected)))
    np.testing.assert_allclose(forward, expected, rtol=1e-2, atol=smallest)
    np.testing.assert_allclose(reverse, forward, rtol=1e-6, atol=1e-9)
    return dict(zip(NAMES, np.asarray(expected).T, strict=True))


VPG: Any = {"baseline_epochs": 2, "max_grad_norm": 0.7, "entropy_coef": 0.1}
PPO: Any = {"num_minibatches": 2, "epochs": 2, "entropy_coef": 0.1, "normalize_reward": True}
PPO |= {"target_kl": 0.002, "normalize_obs": True, "clip_eps": 0.02, "policy_learning_rate": 0.01}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "without"),
    [
        (
            lambda: purerl.vpg(Probe("match", length=3), **SIZES, **VPG),
            {"gae_lambda", "clip_eps", "target_kl"},
        ),
        (lambda: purerl.ppo(Steered(), **SIZES, **PPO), {"target_kl"}),
    ],
    ids=["vpg", "ppo"],
)
def test_derivatives_by_each_hyperparameter_are_those_of_differences(build, without):
    with jax.enable_x64(True):
        config = build()
        found = assert_right(after_updates(config), values_of(config))
        state, metrics = jax.eval_shape(purerl.train, jax.random.key(0), config)
    assert {name for name in NAMES if np.all(found[name] == 0)} == without
    for leaf in jax.tree.leaves(eqx.filter((state, metrics), eqx.is_array_like)):
        assert not jnp.issubdtype(leaf.dtype, jnp.inexact) or leaf.dtype == jnp.float64


@pytest.mark.slow
def test_a_frozen_agent_has_the_derivative_of_its_last_finite_state():
    with jax.enable_x64(True):
        config = purerl.vpg(Steered(breaks_at=16), **SIZES, **VPG)

        def measure(values):
            state, metrics = purerl.train(jax.random.key(0), at(config, values))
            numbers = jnp.array([size_of(state.learner), metrics.value_loss[1]])
            return numbers, (state.failed_at, metrics.value_loss)

        values = values_of(config)
        failed_at, losses = jax.jit(measure)(values)[1]
        found = assert_right(lambda values: measure(values)[0], values)
    assert int(failed_at) == 2
    assert np.isnan(losses).tolist() == [False, False, True, True]
    assert np.all(found["baseline_learning_rate"] != 0)


class Nothing(eqx.Module):
    """A baseline that is right where nothing is paid."""

    weight: jax.Array

    def __call__(self, obs):
        return self.weight * obs[0]


def nothing(key, obs_space, action_space):
    return Nothing(jnp.zeros(()))


@pytest.mark.slow
def test_where_a_gradient_is_0_its_derivatives_are_finite():
    env = Probe(length=3)
    with jax.enable_x64(True):
        unpaid = env.default_params._replace(reward_scale=0.0)
        config = purerl.vpg(env, env_params=unpaid, baseline=nothing, max_grad_norm=0.5, **SIZES)
        measure = after_updates(config)
        values = values_of(config)
        number = jax.jit(lambda values: measure(values)[-1])
        forward = jax.jit(jax.jacfwd(number))(values)
        reverse = jax.jit(jax.grad(number))(values)
    assert np.isfinite(forward).all()
    np.testing.assert_allclose(reverse, forward, rtol=1e-6)
    by_name = dict(zip(NAMES, np.asarray(forward), strict=True))
    assert by_name["policy_learning_rate"] == by_name["max_grad_norm"] == 0
    assert by_name["entropy_coef"] != 0


# The pieces


def test_the_update_of_the_policy_moves_with_the_baseline():
    def by_sgd(learning_rate, max_grad_norm):
        return optax.sgd(learning_rate)

    with jax.enable_x64(True):
        config = purerl.vpg(Probe("match", length=3), optimizer=by_sgd, **SIZES)
        state = jax.jit(purerl.init)(jax.random.key(0), config)

        def moved(shift):
            baseline = jax.tree.map(lambda x: x + shift, state.learner.baseline)
            start = eqx.tree_at(lambda s: s.learner.baseline, state, baseline)
            policy = purerl.train_step(start, config)[0].learner.policy
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(policy))

        moved = jax.jit(moved)
        found = jax.jit(jax.grad(moved))(0.0)
        expected = float((moved(STEP) - moved(-STEP)) / (2 * STEP))
    assert abs(expected) > 1e-6
    np.testing.assert_allclose(found, expected, rtol=1e-2)


@pytest.mark.parametrize("value", [0.0, 4.0, np.inf, np.nan, -1.0])
def test_roots_and_norms_are_the_plain_ones(value):
    np.testing.assert_array_equal(derivatives.sqrt(jnp.array([value])), jnp.sqrt(value)[None])
    x = jnp.array([value, 3.0])
    np.testing.assert_array_equal(derivatives.norm(x), jnp.linalg.norm(x))
    assert jnp.isfinite(jax.grad(derivatives.norm)(jnp.zeros(2))).all()


def test_a_mean_of_nothing_is_nan_and_passes_nothing_on():
    total, count = jnp.array([3.0, 0.0]), jnp.array([2, 0])
    np.testing.assert_array_equal(derivatives.mean(total, count), [1.5, np.nan])
    gradient = jax.grad(lambda x: jnp.nansum(derivatives.mean(x, count)))(total)
    np.testing.assert_array_equal(gradient, [0.5, 0])


@pytest.mark.parametrize("max_norm", [0.1, 2.0, np.inf])
def test_clipping_is_optaxs(max_norm):
    for vector in (jnp.array([0.3, -0.4]), jnp.zeros(2), jnp.array([jnp.nan, 1.0])):
        ours, theirs = clip_by_norm(max_norm), optax.clip_by_global_norm(max_norm)
        clipped = ours.update(vector, ours.init(vector))[0]
        np.testing.assert_array_equal(clipped, theirs.update(vector, theirs.init(vector))[0])

    def total(x):
        return jnp.sum(jnp.asarray(ours.update(x, ours.init(x))[0]))

    gradient = jax.grad(total)(jnp.zeros(2))
    np.testing.assert_array_equal(gradient, np.ones(2))


class Line(eqx.Module):
    slope: jax.Array

    def __call__(self, row):
        return self.slope * jnp.sqrt(row[0])


def test_rows_that_are_not_chosen_have_no_part_in_a_derivative():
    mask = jnp.array([True, False, True, False])
    rows = jnp.array([[4.0], [-1.0], [9.0], [jnp.nan]])

    def total(slope, rows, other):
        return jnp.sum(map_rows_where(Line(slope), mask, rows, other))

    arguments = jnp.float32(2), rows, jnp.zeros(4)
    slope, by_rows, other = jax.jit(jax.grad(total, (0, 1, 2)))(*arguments)
    assert slope == 5
    np.testing.assert_allclose(by_rows[:, 0], [0.5, 0, 1 / 3, 0], rtol=1e-6)
    np.testing.assert_array_equal(other, [0, 1, 0, 1])
    assert jax.jit(jax.jacfwd(total))(*arguments) == 5
