"""Every space of gymnax: what the default networks make of it, and that it trains."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import purerl
from purerl.networks.defaults import Encoder
from purerl.networks.layers import Convolution
from purerl.rollout import collect

SMALL: dict[str, Any] = {"num_envs": 2, "rollout_length": 8, "total_steps": 32, "hidden": (8,)}
ENVS = [name for name in purerl.env_names() if name != "MNISTBandit-bsuite"]  # a download
train = jax.jit(purerl.train)
KINDS = ("Acrobot-v1", "Breakout-MinAtar", "Catch-bsuite", "FrozenLake-misc", "Pendulum-v1")


def slow_unless_one_of_its_kind(name):
    return pytest.param(name, marks=() if name in KINDS else pytest.mark.slow)


def test_there_are_25_environments():
    assert len(ENVS) == 25
    assert set(KINDS) < set(ENVS)


@pytest.mark.parametrize("algorithm", [purerl.ppo, purerl.vpg])
@pytest.mark.parametrize("name", [slow_unless_one_of_its_kind(name) for name in ENVS])
def test_two_updates_of_every_environment_are_finite(name, algorithm):
    config = algorithm(name, **SMALL)
    state, metrics = train(jax.random.key(0), config)
    assert int(state.failed_at) == -1
    for value in (metrics.policy_loss, metrics.value_loss, metrics.entropy):
        assert value.shape == (2,)
        assert np.isfinite(value).all()
    spec = config.env_spec
    _, rollout, _ = jax.eval_shape(
        collect, jax.random.key(1), state.learner.policy, state.envs, config
    )
    assert rollout.obs.shape == (8, 2, *spec.obs_space.shape)
    assert rollout.obs.dtype == np.float32
    assert rollout.action.shape == (8, 2, *spec.action_space.shape)
    is_discrete = isinstance(spec.action_space, purerl.Discrete)
    assert np.issubdtype(rollout.action.dtype, np.integer if is_discrete else np.floating)


# Observations


@pytest.mark.parametrize("stride", [1, 2])
def test_the_convolution_is_xlas(stride):
    key = jax.random.key(0)
    layer = Convolution((9, 7, 2), 5, kernel=3, stride=stride, key=key)
    image = jax.random.normal(jax.random.key(1), (9, 7, 2))
    want = jax.lax.conv_general_dilated(
        image[None],
        layer.dense.weight.reshape(3, 3, 2, 5),
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    np.testing.assert_allclose(layer(image), want + layer.dense.bias, rtol=1e-4, atol=1e-5)


@eqx.filter_jit
def encoder(space):
    return Encoder(space, channels=4, key=jax.random.key(0))


def encoded(made, obs):
    """The shape that an encoder, or one of shapes, makes of an observation."""
    return eqx.filter_eval_shape(lambda made, obs: made(obs), made, obs)


@pytest.mark.parametrize(
    ("shape", "size", "strides"),
    [
        ((6,), 6, []),
        ((10, 5), 50, []),
        ((), 1, []),
        ((10, 10, 4), 8 * 8 * 4, [1]),
        ((30, 40, 3), 4 * 7 * 4, [2, 2, 1]),
        ((2, 2, 1), 4, [1]),
    ],
)
def test_an_encoder_makes_a_vector_of_each_shape(shape, size, strides):
    made = eqx.filter_eval_shape(encoder, purerl.Box(0.0, 1.0, shape))
    assert [each.stride for each in made.convolutions] == strides
    assert encoded(made, jnp.ones(shape)).shape == (size,) == (made.size,)


def test_a_discrete_observation_is_one_hot():
    np.testing.assert_array_equal(encoder(purerl.Discrete(4))(jnp.float32(2)), [0, 0, 1, 0])


def test_an_image_policy_sees_its_image():
    policy: Any = eqx.filter_jit(purerl.DefaultPolicy())(
        jax.random.key(0), purerl.Box(0.0, 1.0, (10, 10, 4)), purerl.Discrete(3)
    )
    left, right = jnp.zeros((10, 10, 4)).at[2, 2, 0].set(1), jnp.zeros((10, 10, 4))
    assert not np.allclose(policy(left).logits, policy(right).logits)


# Actions


@dataclasses.dataclass(frozen=True)
class Echo:
    """It pays the action that it receives, and takes actions from −0.5 to 0.5."""

    def observation_space(self, params):
        return purerl.Box(0.0, 1.0, (1,))

    def action_space(self, params):
        return purerl.Box(-0.5, 0.5, (1,))

    def reset(self, key, params):
        return jnp.zeros(1), jnp.int32(0)

    def step(self, key, state, action, params):
        info = {"final_observation": jnp.zeros(1)}
        return jnp.zeros(1), state, action[0], jnp.array(True), jnp.array(False), info


def test_an_action_beyond_the_bounds_is_stored_as_sampled_and_clipped_for_the_environment_alone():
    config = purerl.ppo(Echo(), num_envs=8, rollout_length=32, total_steps=256, hidden=(8,))

    @jax.jit
    def play(config):
        state = purerl.init(jax.random.key(0), config)
        policy = state.learner.policy
        _, rollout, _ = collect(jax.random.key(1), policy, state.envs, config)
        log_prob = jax.vmap(jax.vmap(lambda obs, a: policy(obs).log_prob(a)))
        return rollout, log_prob(rollout.obs, rollout.action)

    rollout, log_prob = play(config)
    action = np.asarray(rollout.action)[..., 0]
    assert np.any(np.abs(action) > 1), "the test should see actions beyond the bounds"
    np.testing.assert_allclose(rollout.reward, np.clip(action / 2, -0.5, 0.5), rtol=1e-6)
    np.testing.assert_allclose(rollout.log_prob, log_prob, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"squash": True}, {"std_from_obs": True}])
def test_a_gaussian_policy_learns_to_push_to_the_bound(settings):
    config = purerl.ppo(
        Echo(), num_envs=16, rollout_length=16, total_steps=256 * 40, hidden=(8,), **settings
    )
    state, metrics = train(jax.random.key(0), config)
    assert float(metrics.episode_return[0]) < 0.2
    assert float(metrics.episode_return[-1]) > 0.35
    assert int(state.failed_at) == -1


def policy_of(space, **settings) -> Any:
    factory = eqx.filter_jit(purerl.DefaultPolicy(**settings))
    return factory(jax.random.key(0), purerl.Box(-1.0, 1.0, (3,)), space)


def test_the_first_gaussian_is_centred_in_the_box_and_half_as_wide():
    low, high = np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)
    distribution = policy_of(purerl.Box(low, high, (2,)))(jnp.ones(3))
    np.testing.assert_allclose(distribution.loc, [0, 0], atol=0.1)
    np.testing.assert_allclose(distribution.scale, [1, 1], rtol=1e-5)


def test_an_unbounded_box_has_a_standard_gaussian():
    distribution = policy_of(purerl.Box(-np.inf, np.inf, (2, 2)))(jnp.ones(3))
    assert distribution.loc.shape == (2, 2)
    np.testing.assert_allclose(distribution.scale, np.ones((2, 2)))


def test_the_spread_depends_on_the_observation_where_the_network_gives_it():
    box = purerl.Box(-1.0, 1.0, (2,))
    fixed, given = policy_of(box), policy_of(box, std_from_obs=True)
    one, two = jnp.ones(3), -jnp.ones(3)
    np.testing.assert_array_equal(fixed(one).scale, fixed(two).scale)
    assert not np.array_equal(given(one).scale, given(two).scale)


@pytest.mark.parametrize("hidden", [(8,), (64, 64), (16, 256)])
@pytest.mark.parametrize("std_from_obs", [False, True])
def test_a_gradient_step_moves_the_deviation_about_as_far_as_a_parameter(std_from_obs, hidden):
    rate, obs = 1e-3, jax.random.normal(jax.random.key(1), (32, 3))
    policy = policy_of(purerl.Box(-1.0, 1.0, (2,)), std_from_obs=std_from_obs, hidden=hidden)
    arrays, static = eqx.partition(policy, eqx.is_inexact_array)

    def log_std(arrays):
        return jax.vmap(lambda obs: jnp.log(eqx.combine(arrays, static)(obs).scale))(obs)

    @jax.jit
    def change(arrays):
        gradient = jax.grad(lambda arrays: log_std(arrays).mean())(arrays)
        updates, _ = optax.adam(rate).update(gradient, optax.adam(rate).init(arrays))
        return log_std(arrays) - log_std(eqx.apply_updates(arrays, updates))

    steps = np.abs(change(arrays)) / rate
    assert np.all(steps < 2.5)  # 1 of the parameter, at most 1 of the features, and the bias
    assert steps.mean() > 0.5


def test_the_first_deviation_is_1_whoever_gives_it():
    box = purerl.Box(-1.0, 1.0, (2,))
    for std_from_obs in (False, True):
        scale = policy_of(box, std_from_obs=std_from_obs)(jnp.ones(3)).scale
        np.testing.assert_allclose(scale, [1, 1], rtol=1e-2)


@pytest.mark.slow
def test_a_deviation_from_the_observation_does_not_collapse_in_training():
    def median_deviation(std_from_obs):
        settings: Any = {"total_steps": 300_000, "std_from_obs": std_from_obs}
        config = purerl.preset("Pendulum-v1", "ppo", **settings)
        states, _ = purerl.train_seeds(purerl.seed_keys(0, 4), config)

        @jax.jit
        @jax.vmap
        def scale(state):
            policy = state.learner.policy
            rollout = collect(state.key, policy, state.envs, config)[1]
            return jax.vmap(jax.vmap(lambda obs: policy(obs).scale))(rollout.obs)

        return np.median(scale(states))

    assert median_deviation(True) > 0.6 * median_deviation(False)


def test_boxes_of_equal_bounds_are_equal_and_have_an_equal_hash():
    one, same = purerl.Box(-1, 1, (2,)), purerl.Box(np.full(2, -1.0), 1.0, (2,))
    others: list[Any] = [purerl.Box(-1, 2, (2,)), purerl.Box(-1, 1, (3,)), purerl.Discrete(2)]
    assert one == same
    assert hash(one) == hash(same)
    assert all(one != other for other in others)


def test_a_policy_over_a_box_never_retraces():
    import chex

    chex.clear_trace_counter()
    jitted = jax.jit(chex.assert_max_traces(purerl.train, n=1)).trace
    for seed in range(2):
        jitted(jax.random.key(seed), purerl.ppo("Pendulum-v1", **SMALL))


def test_an_image_of_one_row_has_an_encoder():
    made = eqx.filter_eval_shape(encoder, purerl.Box(0.0, 1.0, (1, 20, 2)))
    assert encoded(made, jnp.ones((1, 20, 2))).ndim == 1
