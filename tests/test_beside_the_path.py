"""Ordinary inputs beside the beaten path: a right result, or one line before anything compiles."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import Probe
from trees import assert_bitwise_equal

import purerl
from purerl.compute.hoisting import MAX_HOISTED_DRAW, scan_hoisting_draws
from purerl.networks.network import parameters

SIZES: Any = {"num_envs": 2, "rollout_length": 8, "total_steps": 2 * 8 * 4}
train = jax.jit(purerl.train)


# The time limit in force


@pytest.mark.parametrize(("limits", "expected"), [(7, 7), ([3, 9], 9)])
def test_an_evaluation_ends_at_the_limit_of_the_config(limits: Any, expected):
    env = Probe(length=0, limit=True)
    config = purerl.vpg(env, **SIZES, hidden=(4,))
    if isinstance(limits, list):
        swept: Any = {"env_params.max_steps_in_episode": limits}
        config = purerl.sweep(config, **swept)[0]
        alone = eqx.tree_at(lambda c: c.env_params.max_steps_in_episode, config, np.float32(9))
    else:
        params = env.default_params._replace(max_steps_in_episode=np.float32(limits))
        config = alone = dataclasses.replace(config, env_params=params)
    assert config.time_limit == expected
    policy = purerl.init(jax.random.key(0), alone).learner.policy
    played = purerl.evaluate(jax.random.key(0), policy, alone, num_episodes=2)
    np.testing.assert_array_equal(played.episode_length, [expected] * 2)
    assert int(played.num_unfinished) == 0


# Constants and infinities in networks and optimisers


class Scaled(eqx.Module):
    """A policy of one layer, with constants in two forms."""

    layer: eqx.nn.Linear
    scale: np.ndarray
    mask: jax.Array

    def __call__(self, obs):
        return purerl.Categorical(self.layer(obs / self.scale) + jax.lax.stop_gradient(self.mask))


def scaled(key, obs_space, action_space):
    scale = np.array([0.4, 1.0, 0.2, 1.0], np.float32)
    return Scaled(eqx.nn.Linear(4, 2, key=key), scale, jnp.zeros(2))


def masked(key, obs_space, action_space):
    network = scaled(key, obs_space, action_space)
    return eqx.tree_at(lambda network: network.mask, network, jnp.array([0.0, -jnp.inf]))


@pytest.mark.parametrize("factory", [purerl.vpg, purerl.ppo])
def test_a_numpy_array_in_a_network_stays_what_it_was(factory):
    config = factory("CartPole-v1", policy=scaled, **SIZES)
    start = jax.jit(purerl.init)(jax.random.key(0), config).learner.policy
    end = train(jax.random.key(0), config)[0].learner.policy
    np.testing.assert_array_equal(end.constants.scale, np.array([0.4, 1.0, 0.2, 1.0], np.float32))
    np.testing.assert_array_equal(end.module.scale, end.constants.scale)
    assert not np.array_equal(end.arrays.layer.weight, start.arrays.layer.weight)
    assert len(jax.tree.leaves(parameters(end))) == 3  # weight, bias, mask


@pytest.mark.parametrize("factory", [purerl.vpg, purerl.ppo])
def test_an_infinity_that_was_there_is_no_failure(factory):
    state, metrics = train(jax.random.key(0), factory("CartPole-v1", policy=masked, **SIZES))
    assert int(state.failed_at) == -1
    assert np.isfinite(metrics.policy_loss).all()
    np.testing.assert_array_equal(state.learner.policy.module.mask, [0, -np.inf])


def with_state(value, scale=1.0):
    """An optimiser that keeps a number beside its steps, and scales them."""

    def optimizer(learning_rate, max_grad_norm):
        descent = optax.sgd(learning_rate)

        def update(updates, state, params=None):
            updates, inner = descent.update(updates, state[0], params)
            grown = jax.tree.map(lambda x: x * scale, updates)
            return grown, (inner, jnp.float32(value))

        return optax.GradientTransformation(
            lambda params: (descent.init(params), jnp.float32(np.inf)), update
        )

    return optimizer


@pytest.mark.parametrize(
    ("value", "scale", "failed_at"), [(np.inf, 1.0, -1), (np.nan, 1.0, 0), (0.0, np.inf, 0)]
)
def test_what_becomes_infinite_or_nan_fails_but_not_an_optimisers_infinity(value, scale, failed_at):
    config = purerl.vpg("CartPole-v1", optimizer=with_state(value, scale), hidden=(4,), **SIZES)
    assert int(train(jax.random.key(0), config)[0].failed_at) == failed_at


# The observation behind an end


@dataclasses.dataclass(frozen=True)
class OnlyAtEnds(Probe):
    """A probe that fills `final_observation` only where an episode ended, with NaN elsewhere."""

    filled: bool = False

    def step(self, key, state, action, params):
        obs, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        final = info["final_observation"]
        if not self.filled:
            final = jnp.where(terminated | truncated, final, jnp.nan)
        return obs, state, reward, terminated, truncated, {"final_observation": final}


@pytest.mark.parametrize("factory", [purerl.vpg, purerl.ppo])
@pytest.mark.parametrize(("length", "limit"), [(3, False), (0, True), (0, False)])
def test_the_final_observation_counts_only_where_an_episode_ended(factory, length, limit):
    results = [
        train(
            jax.random.key(0),
            factory(
                OnlyAtEnds("obs", length, limit, clock=True, filled=filled), **SIZES, hidden=(4,)
            ),
        )
        for filled in (True, False)
    ]
    assert int(results[1][0].failed_at) == -1
    filled, empty = ((state.learner.baseline.arrays, metrics) for state, metrics in results)
    assert_bitwise_equal(empty, filled)


# What is drawn before the rollout's loop


@pytest.mark.parametrize(
    ("size", "is_hoisted"), [(MAX_HOISTED_DRAW, True), (MAX_HOISTED_DRAW + 1, False)]
)
def test_only_what_is_small_is_drawn_before_the_loop(size, is_hoisted):
    keys = jax.random.split(jax.random.key(0), (5, 3))

    def body(total, keys):
        drawn = jax.vmap(lambda key: jax.random.normal(key, (size,)))(keys)
        return total + jnp.sum(drawn), drawn[:, 0]

    def run(scan):
        return scan(body, jnp.float32(0), keys)

    before_loop = {
        variable.aval.shape
        for equation in jax.make_jaxpr(lambda: run(scan_hoisting_draws))().jaxpr.eqns
        for variable in equation.outvars
    }
    assert ((5, 3, size) in before_loop) == is_hoisted
    for found, expected in zip(run(scan_hoisting_draws), run(jax.lax.scan), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


# Components that do nothing, or do not fit


def injected(learning_rate, max_grad_norm):
    return optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate)


def fixed(learning_rate, max_grad_norm):
    return optax.sgd(0.1)


def unclipped(learning_rate, max_grad_norm):
    return optax.sgd(learning_rate)


def one_step_estimate(rollout, value, next_value, hyper):
    return purerl.Estimate(rollout.reward - value, rollout.reward, jnp.ones_like(value))


class Five(eqx.Module):
    layer: eqx.nn.Linear

    def __call__(self, obs):
        return purerl.Categorical(self.layer(obs))


def five(key, obs_space, action_space):
    return Five(eqx.nn.Linear(4, 5, key=key))


@dataclasses.dataclass(frozen=True)
class Spaced(Probe):
    """A probe with other spaces."""

    actions: Any = None
    shape: tuple[int, ...] = (1,)
    dtype: Any = np.float32

    def action_space(self, params):
        return purerl.Discrete(2) if self.actions is None else self.actions()

    def reset(self, key, params):
        state = super().reset(key, params)[1]
        return jnp.zeros(self.shape, self.dtype), state._replace(obs=jnp.zeros(1))

    def step(self, key, state, action, params):
        _, state, *rest, _ = super().step(key, state, jnp.int32(0), params)
        obs = jnp.zeros(self.shape, self.dtype)
        return obs, state._replace(obs=jnp.zeros(1)), *rest, {"final_observation": obs}

    def observation_space(self, params):
        return purerl.Box(-1.0, 1.0, self.shape)


class Imaginary(Probe):
    """A probe whose reward is a complex number."""

    def step(self, key, state, action, params):
        obs, state, reward, *rest = super().step(key, state, action, params)
        return obs, state, reward.astype(np.complex64), *rest


def box(low, high, shape=(1,)):
    return lambda: purerl.Box(low, high, shape)


SCHEDULE: Any = {"schedule": {"policy_learning_rate": "linear"}}
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a rate in the state": (
        "CartPole-v1",
        {"optimizer": injected, **SCHEDULE},
        "schedule: 'policy_learning_rate' has no effect: the policy's optimizer keeps its rate",
    ),
    "a rate that is never read": (
        "CartPole-v1",
        {"optimizer": fixed, "policy_learning_rate": 0.1},
        "policy_learning_rate = 0.1 has no effect: the policy's optimizer never reads it",
    ),
    "a baseline's rate that is never read": (
        "CartPole-v1",
        {"optimizer": fixed, "baseline_learning_rate": 0.1},
        "baseline_learning_rate = 0.1 has no effect: the baseline's optimizer never reads it",
    ),
    "a norm that is never read": (
        "CartPole-v1",
        {"optimizer": unclipped, "max_grad_norm": 0.1},
        "max_grad_norm = 0.1 has no effect: no optimizer reads it",
    ),
    "an estimate without lambda": (
        "CartPole-v1",
        {"algorithm": purerl.A2C._replace(estimate=one_step_estimate), "gae_lambda": 0.9},
        "gae_lambda = 0.9 has no effect: a2c never reads it",
    ),
    "more logits than actions": (
        "CartPole-v1",
        {"policy": five},
        r"gave logits of shape \(5,\) for 2 actions; give \(2,\)",
    ),
    "low above high": (Spaced(actions=box(1.0, -1.0)), {}, "low must not be above high"),
    "NaN bounds": (Spaced(actions=box(np.nan, 1.0)), {}, "low must not be above high"),
    "no actions": (Spaced(actions=lambda: purerl.Discrete(0)), {}, r"Discrete\(0\) has no element"),
    "an empty box": (Spaced(actions=box(0.0, 1.0, (0,))), {}, r"Box\(0\) has no element"),
    "no observation": (Spaced(shape=(0,)), {}, r"Box\(0\) has no element"),
    "complex numbers": (Spaced(dtype=np.complex64), {}, "obs is complex64.*real numbers"),
    "complex rewards": (Imaginary(), {}, "reward is complex64.*return one real number"),
    "channels first": (Spaced(shape=(3, 16, 16)), {}, r"\(3, 16, 16\) look like \[channels"),
}


@pytest.mark.parametrize(("env", "settings", "line"), REFUSED.values(), ids=list(REFUSED))
def test_what_does_nothing_or_does_not_fit_is_refused(env, settings, line, without_type_checks):
    with pytest.raises(ValueError, match=line) as error:
        purerl.a2c(env, **SIZES, **settings)
    assert "\n" not in str(error.value)


def test_what_acts_is_taken():
    purerl.vpg("CartPole-v1", optimizer=injected, policy_learning_rate=0.1, **SIZES)
    purerl.vpg("CartPole-v1", optimizer=unclipped, **SCHEDULE, **SIZES)
    purerl.a2c("CartPole-v1", gae_lambda=0.9, max_grad_norm=1.0, **SIZES)


@pytest.mark.parametrize("name", ["policy", "baseline"])
def test_a_network_without_the_statistics_that_its_state_needs_is_refused(name):
    normalized = purerl.vpg("CartPole-v1", normalize_obs=True, hidden=(4,), **SIZES)
    plain = purerl.vpg("CartPole-v1", hidden=(4,), **SIZES)
    state, own = (purerl.init(jax.random.key(0), config) for config in (normalized, plain))
    network = getattr(own.learner, name)
    mixed = eqx.tree_at(lambda state: getattr(state.learner, name), state, network)
    with pytest.raises(ValueError, match=f"the state's {name} has no statistics") as error:
        jax.eval_shape(lambda state: purerl.advance(state, normalized, 2), mixed)
    assert "\n" not in str(error.value)
    stats = getattr(state.learner, name).stats
    given = purerl.as_network(network.module, stats)
    fitting = eqx.tree_at(lambda state: getattr(state.learner, name), state, given)
    jax.eval_shape(lambda state: purerl.advance(state, normalized, 2), fitting)
