"""A policy acts in units of the action space; what the environment gets is in its own bounds."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.continuous_mountain_car import ContinuousMountainCar
from gymnax.environments.classic_control.pendulum import Pendulum
from gymnax.environments.misc.point_robot import PointRobot
from trees import assert_bitwise_equal

import purerl
from purerl import envs
from purerl.experiment.play.rendering import record_episode
from purerl.networks.network import TrainedPolicy
from purerl.rollout import collect, reset_envs

SIZES: Any = {"num_envs": 4, "rollout_length": 16, "total_steps": 4 * 16, "hidden": (8,)}
INF, TOP = np.inf, np.finfo(np.float32).max
train = jax.jit(purerl.train)


class Bounds(NamedTuple):
    low: Any = 0.0
    high: Any = 1.0
    choices: Any = 2


UNIT = Bounds()


def arrays(bounds):
    low, high = (np.asarray(bound, np.float32) for bound in (bounds.low, bounds.high))
    return Bounds(low, high, np.asarray(bounds.choices, np.int32))


@dataclasses.dataclass(frozen=True)
class Paying:
    """Pays the first component of the action that it gets; episodes have four steps."""

    bounds: Bounds = UNIT
    discrete: bool = False
    traced: bool = True  # whether bounds can be computed from traced parameters

    @property
    def default_params(self):
        return arrays(self.bounds)

    def observation_space(self, params):
        return purerl.Box(0.0, 1.0, (1,))

    def action_space(self, params):
        if self.discrete:
            return purerl.Discrete(int(params.choices))
        low, high = params.low, params.high
        if not self.traced:
            low = np.asarray(low) * 1
        return purerl.Box(low, high, np.shape(low))

    def reset(self, key, params):
        return jnp.ones(1), jnp.int32(0)

    def step(self, key, state, action, params):
        end = state >= 3
        paid = jnp.ravel(action)[0].astype(jnp.float32)
        final = {"final_observation": jnp.ones(1)}
        return jnp.ones(1), jnp.where(end, 0, state + 1), paid, end, jnp.bool_(False), final


def scaled_by_hand(action, low, high):
    """Component by component, in float64."""
    out = []
    for a, bottom, top in zip(action, low, high, strict=True):
        has_low, has_high = abs(bottom) < 1e38, abs(top) < 1e38
        if has_low and has_high:
            value = bottom + (a + 1) / 2 * (top - bottom)
        elif has_low:
            value = bottom + (a + 1)
        elif has_high:
            value = top + (a - 1)
        else:
            value = a
        out.append(min(max(value, bottom), top))
    return np.array(out)


LOWS = [-2.0, 0.0, 5.0, -INF, -TOP, -INF, -1.0, 3.0, -3e37, 0.0]
HIGHS = [2.0, 1000.0, INF, 7.0, TOP, INF, TOP, 3.0, 3e37, 1e-3]


@pytest.mark.parametrize("traced", [False, True])
def test_each_component_has_its_own_unit(traced):
    def scale(action, low, high):
        return envs.scale_action(action, envs.action_space(Paying(), Bounds(low, high)))

    low, high = np.array(LOWS, np.float32), np.array(HIGHS, np.float32)
    scale = jax.jit(scale) if traced else scale
    for action in (*np.random.default_rng(0).normal(0, 1.5, (50, 10)), -np.ones(10), np.ones(10)):
        action = action.astype(np.float32)
        expected = scaled_by_hand(action, low.astype(float), high.astype(float))
        np.testing.assert_allclose(scale(jnp.asarray(action), low, high), expected, rtol=1e-5)


def test_a_derivative_by_a_bound_is_that_of_the_line():
    def scale(low, high):
        return envs.scale_action(jnp.full(1, 0.5), purerl.Box(low, high, (1,)))[0]

    assert jax.grad(scale, (0, 1))(-2.0, 6.0) == (0.25, 0.75)
    assert jax.grad(scale, (0, 1))(-2.0, jnp.inf) == (1.0, 0.0)


def test_a_box_in_units_has_bounds_of_one():
    units = purerl.Box(np.array(LOWS), np.array(HIGHS), (10,)).in_units
    np.testing.assert_array_equal(units.low, np.where(np.isfinite(LOWS), -1, -INF))
    np.testing.assert_array_equal(units.high, np.where(np.isfinite(HIGHS), 1, INF))
    assert not units.is_bounded
    assert purerl.Box(-3.0, 8.0, (2,)).in_units.is_bounded


# Bounds in force


@dataclasses.dataclass(frozen=True)
class Default:
    """An environment with other default parameters; it has no other class."""

    env: Any
    params: Any

    @property
    def default_params(self):
        return self.params

    def __getattr__(self, name):
        return getattr(self.env, name)

    def __hash__(self):
        return hash(str(self.params))

    def __eq__(self, other):
        return isinstance(other, Default) and str(self) == str(other)


def swept_and_alone(name, parameter, values, make, function):
    """`function(config)` of a sweep, and of environments that have its values by default."""
    swept: Any = {f"env_params.{parameter}": values}
    configs, axes = purerl.sweep(purerl.ppo(name, **SIZES), **swept)
    params = purerl.make_env(name)[1]
    alone: list[Any] = [Default(make(), params.replace(**{parameter: value})) for value in values]
    return (
        jax.jit(jax.vmap(function, (axes,)))(configs),
        [jax.jit(function)(purerl.ppo(env, **SIZES)) for env in alone],
    )


@pytest.mark.slow
def test_a_sweep_over_bounds_trains_environments_that_have_these_bounds():
    def train(config):
        state, metrics = purerl.train(jax.random.key(0), config)
        return state.learner, metrics

    swept, alone = swept_and_alone("Pendulum-v1", "max_torque", [2.0, 10.0], Pendulum, train)
    for i, one in enumerate(alone):
        for ours, theirs in zip(jax.tree.leaves(swept), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=2e-4, atol=2e-4)
    assert swept[1].value_loss[0] != swept[1].value_loss[1]


@pytest.mark.parametrize(
    ("name", "parameter", "values", "make"),
    [
        ("MountainCarContinuous-v0", "max_action", [1.0, 3.0], ContinuousMountainCar),
        ("PointRobot-misc", "max_force", [0.1, 0.7], PointRobot),
    ],
)
def test_a_rollout_is_that_of_an_environment_with_these_bounds(name, parameter, values, make):
    def rollout(config):
        key = jax.random.key(0)
        return collect(key, lambda obs: wide(obs, config), reset_envs(key, config), config)[1]

    def wide(obs, config):
        shape = config.env_spec.action_space.shape
        return purerl.DiagonalGaussian(jnp.zeros(shape), jnp.full(shape, 2.0))

    swept, alone = swept_and_alone(name, parameter, values, make, rollout)
    for i, one in enumerate(alone):
        np.testing.assert_allclose(swept.obs[i], one.obs, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(swept.action[i], one.action)
    assert np.any(swept.obs[0] != swept.obs[1])


@pytest.mark.parametrize(
    ("low", "high", "mean"), [(-2.0, 10.0, 4.0), (100.0, 300.0, 200.0), (-1e-3, 1e-3, 0.0)]
)
def test_training_evaluation_and_act_use_the_bounds_of_the_parameters(low, high, mean):
    env, moved = Paying(Bounds((0.0,), (1.0,))), arrays(Bounds((low,), (high,)))
    config = purerl.vpg(env, env_params=moved, **SIZES | {"num_envs": 256, "total_steps": 256 * 16})
    state, metrics = train(jax.random.key(0), config)
    spread = (high - low) / 2
    assert abs(float(metrics.episode_return[0]) / 4 - mean) < 0.05 * spread
    policy = TrainedPolicy(state.learner.policy, envs.action_space(env, moved))
    played = purerl.evaluate(jax.random.key(1), policy, config, num_episodes=1, max_steps=4)
    action = policy.act(jnp.ones(1))
    np.testing.assert_allclose(played.episode_return[0] / 4, action[0], rtol=1e-5, atol=1e-6)
    sampled = jax.vmap(lambda key: policy.act(jnp.ones(1), key))(
        jax.random.split(jax.random.key(2), 500)
    )
    assert float(sampled.min()) == np.float32(low)
    assert float(sampled.max()) == np.float32(high)


def test_a_component_without_an_upper_bound_leaves_the_others_theirs():
    env = Paying(Bounds((0.0, -INF, 0.0), (1000.0, INF, INF)))
    config = purerl.vpg(env, **SIZES | {"num_envs": 256, "total_steps": 256 * 16})
    metrics = train(jax.random.key(0), config)[1]
    assert 450 < float(metrics.episode_return[0]) / 4 < 550


@pytest.mark.slow
def test_a_run_gives_the_bounds_to_its_policies_and_films(tmp_path):
    params = purerl.make_env("Pendulum-v1")[1].replace(max_torque=7.0)
    config = purerl.ppo("Pendulum-v1", env_params=params, squash=True, **SIZES)
    run = purerl.run(config, [3], tmp_path / "run", evaluation_episodes=0, progress=False)
    policy = run.policy(3)
    obs = np.array([0.5, -0.5, 2.0])
    before_squash = policy(obs).mode()
    np.testing.assert_allclose(policy.act(obs), 7 * np.tanh(before_squash), rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(lambda obs: policy.act(obs))(obs), policy.act(obs))
    purerl.save_policy(tmp_path / "policy.npz", policy, config)
    for loaded in (
        purerl.load_policy(tmp_path / "policy.npz"),
        purerl.load_policy(tmp_path / "run", 3),
    ):
        assert_bitwise_equal(loaded.act(obs), policy.act(obs))
        assert loaded.action_space == policy.action_space
    assert abs(float(policy.act(obs, jax.random.key(0))[0])) <= 7
    # The last state of a film is stepped to anew; in a longer one it is that of the episode.
    pushing = eqx.tree_at(
        lambda p: p.arrays.network.mlp.layers[-1].bias, policy.network, jnp.full(1, 2.0)
    )
    films = [
        record_episode(jax.random.key(0), pushing, config, max_steps=steps) for steps in (3, 4)
    ]
    assert_bitwise_equal(films[0].states[3], films[1].states[3])
    assert films[0].states[1].last_u > 6


def test_observations_of_other_types_are_read_as_in_training():
    config = purerl.vpg("CartPole-v1", **SIZES)
    network = purerl.init(jax.random.key(0), config).learner.policy
    policy = TrainedPolicy(network, purerl.Discrete(2))
    obs = np.array([1, 2, 3, 4])
    expected = network(jnp.array([1.0, 2.0, 3.0, 4.0])).mode()
    assert policy.act(obs) == policy.act(obs.astype(np.float64)) == expected
    assert policy.act(obs).dtype == jnp.int32


def test_a_trained_policy_in_a_state_is_refused():
    config = purerl.vpg("CartPole-v1", **SIZES)
    state = purerl.init(jax.random.key(0), config)
    policy = TrainedPolicy(state.learner.policy, purerl.Discrete(2))
    mixed = eqx.tree_at(lambda state: state.learner.policy, state, policy)
    with pytest.raises(ValueError, match=r"policy is a TrainedPolicy; .*\.network") as error:
        jax.eval_shape(lambda state: purerl.advance(state, config, 1), mixed)
    assert "\n" not in str(error.value)


# What cannot be is refused


def with_params(bounds, **settings):
    return lambda: purerl.vpg(Paying(**settings), env_params=arrays(bounds), **SIZES)


def swept(**values):
    config = purerl.vpg(Paying(), **SIZES)
    columns: Any = {f"env_params.{name}": column for name, column in values.items()}
    return lambda: purerl.sweep(config, zip=True, **columns)


HALF = Bounds((0.0, 0.0), (1.0, INF))
REFUSED = {
    "squash without an upper bound": (
        lambda: purerl.vpg(Paying(HALF), squash=True, **SIZES),
        r"squash = True needs two bounds for each component, but Box\(2\) lacks some",
    ),
    "squash under parameters without a bound": (
        lambda: purerl.vpg(Paying(), env_params=arrays(Bounds(0, INF)), squash=True, **SIZES),
        "squash = True needs two bounds",
    ),
    "more choices than by default": (
        with_params(Bounds(choices=3), discrete=True),
        r"env_params make action_space Discrete\(3\), but it is Discrete\(2\) by default",
    ),
    "the wrong way round": (with_params(Bounds(2.0, 1.0)), "low must not be above high"),
    "NaN": (with_params(Bounds(np.nan, 1.0)), "low must not be above high, and neither NaN"),
    "one of a sweep the wrong way round": (
        swept(low=[0.0, 3.0], high=[1.0, 2.0]),
        "low must not be above high",
    ),
    "bounds by NumPy": (
        lambda: purerl.vpg(Paying(traced=False), **SIZES),
        "action_space could not be traced: .*jax.numpy",
    ),
}


@pytest.mark.parametrize(("build", "line"), REFUSED.values(), ids=list(REFUSED))
def test_bounds_that_cannot_be_are_refused(build, line):
    with pytest.raises(ValueError, match=line) as error:
        build()
    assert "\n" not in str(error.value)


def test_bounds_that_move_together_are_taken():
    swept(low=[0.0, 30.0], high=[1.0, 40.0])()


def test_all_names_of_gymnax_have_spaces_that_can_be_traced():
    for name in gymnax.registered_envs:
        if name not in ("MNISTBandit-bsuite",):
            env, params = purerl.make_env(name)
            envs.check_env(env, params)
