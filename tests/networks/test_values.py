"""Configs, states, policies and runs equal their copies, and partials those of the same parts."""

import copy
import functools
import multiprocessing
import pickle
from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe
from trees import assert_bitwise_equal

import purerl
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy

ENV: Any = Probe("match", length=3)
SIZES: Any = {"num_envs": 4, "rollout_length": 8, "total_steps": 64, "hidden": (4,)}


def pickled(value):
    return pickle.loads(pickle.dumps(value))


COPIES = [pickled, copy.deepcopy, copy.copy]


def relu_policy(key, obs_space, action_space, width=4):
    activations: Any = {"activation": jax.nn.relu, "final_activation": jax.nn.identity}
    return Policy(eqx.nn.MLP(4, action_space.n, width, 1, key=key, **activations))


class Policy(eqx.Module):
    mlp: eqx.nn.MLP

    def __call__(self, obs):
        return purerl.Categorical(self.mlp(obs))


CONFIGS: dict[str, Any] = {
    "a preset": lambda: purerl.preset("CartPole-v1", "ppo"),
    "actions from a box": lambda: purerl.ppo("Pendulum-v1", squash=True, normalize_obs=True),
    "with arguments": lambda: purerl.vpg(purerl.make_env("BernoulliBandit-misc")[0]),
    "networks of jax.nn": lambda: purerl.vpg(
        "CartPole-v1",
        policy=DefaultPolicy(activation=jax.nn.relu),
        baseline=DefaultBaseline(activation=jax.nn.silu),
    ),
    "an own policy": lambda: purerl.vpg("CartPole-v1", policy=relu_policy),
    "a partial": lambda: purerl.vpg(
        "CartPole-v1", policy=functools.partial(relu_policy, width=8), discount=0.9
    ),
    "a sweep": lambda: purerl.sweep(purerl.vpg("CartPole-v1"), discount=[0.9, 0.99])[0],
}


def assert_same_program(config, other):
    assert jax.tree.structure(config) == jax.tree.structure(other)
    assert hash(jax.tree.structure(config)) == hash(jax.tree.structure(other))
    assert_bitwise_equal(config, other)
    assert config.asked.given == other.asked.given


@pytest.mark.parametrize("make_copy", COPIES)
@pytest.mark.parametrize("make", CONFIGS.values(), ids=list(CONFIGS))
def test_the_copy_of_a_config_is_the_same_program(make, make_copy):
    config = make()
    assert_same_program(config, make_copy(config))


@pytest.mark.parametrize("make_copy", COPIES)
@pytest.mark.parametrize("make", [CONFIGS["actions from a box"], CONFIGS["an own policy"]])
def test_the_copy_of_a_state_trains_with_the_same_program(make, make_copy):
    config = make()
    state = purerl.init(jax.random.key(0), config)
    other = make_copy(state)
    assert jax.tree.structure(other) == jax.tree.structure(state)
    assert_bitwise_equal(other, state)


def test_a_run_and_its_policies_are_pickled(tmp_path):
    config = purerl.vpg("CartPole-v1", **SIZES)
    run = purerl.run(config, seeds=2, directory=tmp_path, progress=False)
    for make_copy in (pickled, copy.deepcopy):
        again = make_copy(run)
        assert_same_program(again.config, config)
        assert_bitwise_equal(again.states, run.states)
        obs = jnp.zeros(4)
        assert_bitwise_equal(make_copy(run.policy(seed=1)).act(obs), run.policy(seed=1).act(obs))


def hash_of(config):
    return config.env_steps, float(config.hyper.discount), type(config.env).__name__


@pytest.mark.slow
def test_a_config_reaches_a_spawned_worker():
    config = purerl.vpg("CartPole-v1", discount=0.5)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(hash_of, [config]) == [(300_000 // 2048 * 2048 + 2048, 0.5, "CartPole")]


# functools.partial


def sgd_of(learning_rate, max_grad_norm, *, momentum):
    import optax

    return optax.sgd(learning_rate, momentum)


def scaled_loss(log_prob, old_log_prob, advantage, hyper, scale=1):
    return -scale * log_prob * advantage


def leaky(x, slope):
    return jnp.where(x > 0, x, slope * x)


def with_partials(number: Any = 0.5):
    partial = functools.partial
    settings: Any = {**SIZES, "hidden": (3,)}
    return purerl.vpg(
        ENV,
        **settings,
        policy=DefaultPolicy(hidden=(3,), activation=partial(leaky, slope=number)),
        optimizer=partial(sgd_of, momentum=number),
        algorithm=purerl.VPG._replace(policy_loss=partial(partial(scaled_loss), scale=number)),
    )


def program_of(number):
    return jax.tree.structure(with_partials(number))


def test_equal_partials_are_one_program():
    train = jax.jit(chex.assert_max_traces(purerl.train, n=1))
    first, again = (train(jax.random.key(0), with_partials())[1] for _ in range(2))
    assert_bitwise_equal(first, again)


@pytest.mark.parametrize(("number", "other"), [(0.5, 0.25), (1, 1.0), (1, True), (0.0, -0.0)])
def test_partials_of_other_arguments_are_other_programs(number, other):
    first, again, another = map(program_of, (number, number, other))
    assert (first, hash(first)) == (again, hash(again))
    assert first != another


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (np.ones(2), r"momentum holds an array"),
        ((jnp.ones(2), 1), r"momentum holds an array"),
        ([1, 2], r"momentum is not hashable"),
    ],
)
def test_what_two_configs_cannot_be_compared_by_is_refused(argument, line):
    with pytest.raises(ValueError, match=line) as error:
        purerl.vpg(ENV, optimizer=functools.partial(sgd_of, momentum=argument), **SIZES)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("optimizer = functools.partial")
