"""Training as a pure function: what it carries, what it draws, when it traces, when it freezes."""

import dataclasses
from typing import Any, NamedTuple

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import Probe
from trees import assert_bitwise_equal

import purerl
from purerl.compute.trees import divide
from purerl.training import advance_window

SMALL = {"num_envs": 3, "rollout_length": 5, "total_steps": 60, "hidden": (8,)}  # 4 updates
ENV = Probe(reward="action", length=2)

init, train, train_step = (jax.jit(each) for each in (purerl.init, purerl.train, purerl.train_step))
advance = jax.jit(purerl.advance, static_argnums=2)


@pytest.fixture(autouse=True)
def fresh_trace_counts():
    chex.clear_trace_counter()


@pytest.fixture(scope="module")
def config():
    return purerl.vpg(ENV, **SMALL)


@pytest.fixture(scope="module")
def trained(config):
    return train(jax.random.key(0), config)


def in_two_chunks(state, config):
    """Four updates."""
    state, first = advance(state, config, 2)
    state, second = advance(state, config, 2)
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second)


def assert_close(actual, expected):
    """Equal but for reordered sums: Adam moves a weight by up to 3e-3 or more an update."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), actual, expected
    )


def assert_same_training(state, expected):
    """The same random stream and environments, bit by bit; the same networks up to rounding."""
    for part in ("key", "step", "failed_at", "envs"):
        assert_bitwise_equal(getattr(state, part), getattr(expected, part))
    assert_close(state.learner.policy, expected.learner.policy)
    assert_close(state.learner.baseline, expected.learner.baseline)


# What is carried


def test_a_state_is_arrays_only_before_and_after_training(config, trained):
    for state in (init(jax.random.key(0), config), trained[0]):
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_training_keeps_the_structure_shapes_and_dtypes_of_the_state(config, trained):
    before = jax.eval_shape(purerl.init, jax.random.key(0), config)
    after = jax.eval_shape(lambda: trained[0])
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


def test_reinforce_carries_no_baseline():
    config = purerl.reinforce(Probe(), num_envs=2, total_steps=20)
    state = jax.eval_shape(purerl.init, jax.random.key(0), config)
    assert state.learner.baseline is None
    assert state.learner.baseline_opt_state is None
    assert state.learner.policy_opt_state is not None


def test_a_trained_policy_is_callable_on_one_observation(trained):
    distribution = trained[0].learner.policy(jnp.ones(1))
    assert distribution.logits.shape == (2,)


# What is drawn


def test_train_is_init_and_advance(config):
    def train(key, config):
        return purerl.advance(purerl.init(key, config), config, config.num_updates)

    # One program, so that neither need be compiled.
    by_hand, ours = (
        jax.jit(each).lower(jax.random.key(0), config).as_text() for each in (train, purerl.train)
    )
    assert by_hand == ours


def test_training_in_chunks_draws_what_training_at_once_does(config, trained):
    state, metrics = in_two_chunks(init(jax.random.key(0), config), config)
    assert_same_training(state, trained[0])
    assert_close(metrics, trained[1])


def test_a_single_step_at_a_time_trains_the_same(config, trained):
    state = init(jax.random.key(0), config)
    for _ in range(config.num_updates):
        state, _ = train_step(state, config)
    assert_same_training(state, trained[0])


def test_how_often_it_logs_draws_nothing(config, trained):
    seldom = dataclasses.replace(config, log_every=4)
    state, metrics = train(jax.random.key(0), seldom)
    assert_same_training(state, trained[0])
    assert metrics.num_episodes.shape == (1,)
    assert int(metrics.num_episodes[0]) == int(trained[1].num_episodes.sum())
    every = trained[1].num_episodes
    mean = (trained[1].episode_return * every).sum() / every.sum()
    np.testing.assert_allclose(metrics.episode_return[0], mean, rtol=1e-5)


def test_the_last_record_is_of_what_is_left_of_the_updates(config, trained):
    by_three = dataclasses.replace(config, log_every=3)
    state, metrics = train(jax.random.key(0), by_three)
    assert_same_training(state, trained[0])
    every = np.asarray(trained[1].num_episodes)
    np.testing.assert_array_equal(metrics.num_episodes, [every[:3].sum(), every[3]])
    np.testing.assert_allclose(metrics.entropy[1], trained[1].entropy[3], rtol=1e-5)
    np.testing.assert_allclose(metrics.entropy[0], trained[1].entropy[:3].mean(), rtol=1e-5)


def test_only_the_updates_of_a_window_are_made(config, trained):
    """Also of an agent that is frozen: what is not due does not say that it fails."""
    state = init(jax.random.key(0), config)
    advance = jax.jit(lambda state, window: advance_window(state, config, 4, window))
    for window, step in (([3, 4], 1), ([1, 1], 1), ([0, 3], 4)):
        state, sums = advance(state, jnp.array(window))
        assert (int(state.step), int(state.failed_at)) == (step, -1)
        is_due = np.isin(np.arange(4), np.arange(*window))
        np.testing.assert_array_equal(divide(sums).entropy > 0, is_due)
    assert_same_training(state, trained[0])
    nothing = jax.tree.map(lambda x: x * jnp.nan, state.learner.policy)
    broken = eqx.tree_at(lambda s: s.learner.policy, state, nothing)
    for window, failed_at in (([2, 2], -1), ([2, 3], 4), ([0, 4], 4)):
        broken, _ = advance(broken, jnp.array(window))
        assert int(broken.failed_at) == failed_at


# What is compiled


def test_no_host_callback_is_compiled_into_training(config):
    jaxpr = str(jax.make_jaxpr(purerl.train)(jax.random.key(0), config))
    assert "scan" in jaxpr
    assert "callback" not in jaxpr
    assert "debug_" not in jaxpr


def abstractly(function):
    """Jit a function for counting traces alone: nothing is compiled or run."""
    return jax.jit(function).trace


def a_config(**settings):
    return purerl.vpg(Probe(), **(SMALL | settings))


def test_many_seeds_are_one_trace():
    train = chex.assert_max_traces(purerl.train, n=1)
    jitted = abstractly(jax.vmap(train, (0, None)))
    jitted(purerl.seed_keys(0, 64), a_config())
    jitted(purerl.seed_keys(1, 64), a_config())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy_learning_rate": 1e-4, "discount": 0.5, "entropy_coef": 0.1},
        {"env_params": Probe().default_params._replace(reward_scale=3.0)},
        {"total_steps": 59},  # the same whole updates
    ],
)
def test_equal_static_settings_never_retrace(settings):
    jitted = abstractly(chex.assert_max_traces(purerl.train, n=1))
    jitted(jax.random.key(0), a_config())
    jitted(jax.random.key(1), a_config(**settings))


@pytest.mark.parametrize(
    "settings",
    [{"num_envs": 4}, {"baseline_epochs": 3}, {"hidden": (9,)}, {"normalize_advantage": False}],
)
def test_another_static_setting_retraces(settings):
    jitted = abstractly(chex.assert_max_traces(purerl.train, n=1))
    jitted(jax.random.key(0), a_config())
    with pytest.raises(AssertionError, match="traced > 1 times"):
        jitted(jax.random.key(0), a_config(**settings))


def test_a_sweep_is_one_trace():
    train = chex.assert_max_traces(purerl.train, n=1)
    configs, axes = purerl.sweep(a_config(), discount=[0.9, 0.99, 1.0], entropy_coef=[0.1, 0.2])
    abstractly(jax.vmap(train, (None, axes)))(jax.random.key(0), configs)


# What is frozen


WHAT = ("reward", "observation", "one observation")


class FailingParams(NamedTuple):
    fails_at: int = 10**6
    what: int = 0  # of `WHAT`


class Aged(NamedTuple):
    probe: Any
    age: jax.Array


@dataclasses.dataclass(frozen=True)
class Failing:
    """A probe that gives NaN, as reward or as observation, from its step `fails_at` on, or once."""

    default_params = FailingParams()
    probe = Probe(reward="obs", length=2)

    def observation_space(self, params):
        return self.probe.observation_space(params)

    def action_space(self, params):
        return self.probe.action_space(params)

    def reset(self, key, params):
        obs, state = self.probe.reset(key, self.probe.default_params)
        return obs, Aged(state, jnp.int32(0))

    def step(self, key, state, action, params):
        obs, probe, reward, terminated, truncated, info = self.probe.step(
            key, state.probe, action, self.probe.default_params
        )
        what = {name: params.what == i for i, name in enumerate(WHAT)}
        has_failed = state.age >= params.fails_at
        fails = jnp.where(what["one observation"], state.age == params.fails_at, has_failed)
        reward = jnp.where(fails & what["reward"], jnp.nan, reward)
        obs = jnp.where(fails & ~what["reward"], jnp.nan, obs)
        return obs, Aged(probe, state.age + 1), reward, terminated, truncated, info


NEVER = FailingParams().fails_at


@pytest.fixture(scope="module")
def failing_programs():
    """To start and to step seeds of which each fails at a step of its own."""
    config = purerl.vpg(Failing(), **SMALL)
    _, axes = purerl.sweep(config, **{"env_params.fails_at": [NEVER]})  # pyright: ignore[reportArgumentType]
    return [jax.jit(jax.vmap(each, (0, axes))) for each in (purerl.init, purerl.train_step)]


@pytest.fixture(scope="module", params=["reward", "observation"])
def four_seeds(request, failing_programs):
    """Four seeds, of which seed 1 fails in update 2, and the same program without the failure.

    Of each: the states after 0, 1, … 4 updates, and the metrics of the updates.
    """
    params = FailingParams(what=WHAT.index(request.param))
    config = purerl.vpg(Failing(), env_params=params, **SMALL)
    start, step = failing_programs

    def history(fails_at):
        configs, _ = purerl.sweep(config, **{"env_params.fails_at": fails_at})
        states, records = [start(purerl.seed_keys(0, 4), configs)], []
        for _ in range(config.num_updates):
            state, metrics = step(states[-1], configs)
            states.append(state)
            records.append(metrics)
        return states, records

    return history([NEVER, 12, NEVER, NEVER]), history([NEVER] * 4)


@jax.jit
def seeds(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def test_a_seed_that_fails_is_frozen_at_its_last_finite_state(four_seeds):
    (states, _), (healthy, _) = four_seeds
    # Update 2 is the one that meets step 12, at 5 steps an update.
    np.testing.assert_array_equal(states[2].failed_at, [-1] * 4)
    for state in states[3:]:
        np.testing.assert_array_equal(state.failed_at, [-1, 2, -1, -1])
        frozen = eqx.tree_at(lambda s: s.failed_at, state, healthy[2].failed_at)
        assert_bitwise_equal(seeds(frozen, 1), seeds(healthy[2], 1))
        for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array)):
            assert np.isfinite(leaf).all()


def test_a_nan_observation_within_a_rollout_is_seen_without_a_baseline_too():
    settings: dict[str, Any] = SMALL | {"num_envs": 1}
    params = FailingParams(fails_at=7, what=WHAT.index("one observation"))
    config = purerl.reinforce(Failing(), env_params=params, **settings)
    state, _ = train(jax.random.key(0), config)
    assert int(state.failed_at) == 1


def test_a_frozen_seeds_metrics_are_nan_and_count_no_episodes(four_seeds):
    (_, records), _ = four_seeds
    for metrics in records[2:]:
        failed = {name: float(value[1]) for name, value in vars(metrics).items()}
        assert failed.pop("num_episodes") == 0
        assert np.isnan(list(failed.values())).all(), failed


def test_the_other_seeds_are_bit_by_bit_what_they_were_without_the_failure(four_seeds):
    (states, records), (healthy, healthy_records) = four_seeds
    others = np.array([0, 2, 3])
    assert_bitwise_equal(seeds(states[-1], others), seeds(healthy[-1], others))
    for metrics, expected in zip(records, healthy_records, strict=True):
        assert_bitwise_equal(seeds(metrics, others), seeds(expected, others))
    np.testing.assert_array_equal(healthy[-1].failed_at, [-1] * 4)


# What a user brings


class OwnPolicy(eqx.Module):
    """A policy around an `eqx.nn.MLP`, whose activation is a leaf that is no array."""

    mlp: eqx.nn.MLP

    def __call__(self, obs):
        return purerl.Categorical(self.mlp(obs))


def own_policy(key, obs_space, action_space):
    return OwnPolicy(eqx.nn.MLP(obs_space.shape[0], action_space.n, 8, 1, key=key))


def sgd(learning_rate, max_grad_norm):
    return optax.sgd(learning_rate)


def no_policy_loss(log_prob, old_log_prob, advantage, hyper):
    return 0 * log_prob


@jax.jit
def one_update(config):
    before = init(jax.random.key(0), config)
    after, metrics = train_step(before, config)
    return before.learner, after.learner, metrics


def test_a_policy_of_the_users_own_learns_under_jit():
    config = purerl.vpg(
        Probe(reward="match"),
        policy=own_policy,
        policy_learning_rate=3e-2,
        num_envs=16,
        rollout_length=8,
        total_steps=10_000,
    )
    state, metrics = train(jax.random.key(0), config)
    assert float(metrics.episode_return[0]) < 0.8
    assert float(metrics.episode_return[-5:].mean()) > 0.95
    assert isinstance(state.learner.policy.module, OwnPolicy)


def test_a_policy_factory_of_the_users_own_never_retraces():
    jitted = abstractly(chex.assert_max_traces(purerl.train, n=1))
    for seed in range(2):
        jitted(jax.random.key(seed), a_config(policy=own_policy))


def test_training_starts_from_given_parameters(config):
    # A policy sure of action 1 earns 1 a step at once; the default one starts at chance.
    state = init(jax.random.key(0), config)
    module = state.learner.policy.module
    sure = eqx.tree_at(
        lambda m: m.network.mlp.layers[-1].bias, module, jnp.array([-20.0, 20.0], jnp.float32)
    )
    state = eqx.tree_at(lambda s: s.learner.policy, state, purerl.as_network(sure))
    state, metrics = in_two_chunks(state, config)
    np.testing.assert_array_equal(metrics.episode_return, np.full(4, ENV.length))
    assert int(state.step) == 4


def test_an_optimizer_of_the_users_own_takes_the_step():
    # Plain gradient descent moves the parameters by rate * gradient, no more and no less.
    before, after, metrics = one_update(
        purerl.vpg(ENV, optimizer=sgd, policy_learning_rate=0.1, **SMALL)
    )
    moved = optax.tree.norm(optax.tree.sub(after.policy.arrays, before.policy.arrays))
    np.testing.assert_allclose(moved, 0.1 * metrics.policy_grad_norm, rtol=1e-3)
    assert float(moved) > 0


def test_one_piece_of_an_algorithm_can_be_replaced():
    algorithm = purerl.VPG._replace(policy_loss=no_policy_loss)
    before, after, _ = one_update(purerl.vpg(ENV, algorithm=algorithm, **SMALL))
    assert_bitwise_equal(after.policy, before.policy)
    moved = optax.tree.norm(optax.tree.sub(after.baseline.arrays, before.baseline.arrays))
    assert float(moved) > 0
