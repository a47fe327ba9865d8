"""Settings: what is refused before compiling, and in which words; what a config holds."""

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe, ProbeState

import purerl

pytestmark = pytest.mark.usefixtures("without_type_checks")


@pytest.fixture
def without_type_checks():
    """A user has no type checker in the way: what is refused must be refused without one."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# Environments, each with one thing wrong


@dataclasses.dataclass(frozen=True)
class Broken(Probe):
    """A probe that changes what `step` returns."""

    change: Callable[..., Any] = lambda *step: step

    def step(self, key, state, action, params):
        return self.change(*super().step(key, state, action, params))


class Resetless(Probe):
    reset: Any = None


class Raising(Probe):
    def reset(self, key, params):
        raise RuntimeError("no more\nresets")


@dataclasses.dataclass
class Unhashable:
    """Not frozen, so without a hash."""

    reset = Probe.reset
    step = Probe.step
    action_space = Probe.action_space
    observation_space = Probe.observation_space


class Picture(Probe):
    """Observations are images."""

    def reset(self, key, params):
        return jnp.zeros((4, 4, 3)), ProbeState(jnp.zeros((4, 4, 3)), jnp.int32(0))

    def step(self, key, state, action, params):
        obs, state = self.reset(key, params)
        flag = jnp.array(False)
        return obs, state, jnp.float32(0), flag, flag, {"final_observation": obs}


class Wordy(Probe):
    def action_space(self, params):
        return "left or right"


# Networks that do not fit


class Bare(eqx.Module):
    """A policy that gives its logits and no distribution."""

    def __call__(self, obs):
        return jnp.zeros(2)


class Wide(eqx.Module):
    """A baseline that gives an array of one number, not a number."""

    def __call__(self, obs):
        return jnp.zeros(1)


def bare(key, obs_space, action_space):
    return Bare()


def wide(key, obs_space, action_space):
    return Wide()


def uncallable(key, obs_space, action_space):
    return eqx.Module()


def needs_a_picture(key, obs_space, action_space):
    raise IndexError("an observation of three axes, please\nand more")


def vpg(**settings):
    return lambda: purerl.vpg(Probe(), **settings)


def env(which, **settings):
    return lambda: purerl.vpg(which, **settings)


def broken(change):
    return env(Broken(change=change))


def sweep(**values):
    return lambda: purerl.sweep(purerl.vpg(Probe()), **values)


# What is built, and what the one line must say: the field, what it was, what would do.
REFUSED = {
    "unknown env": (env("CartPol-v1"), ["env", "'CartPol-v1'", "CartPole-v1"]),
    "env with no near name": (env("zzzzzz"), ["env", "'zzzzzz'", "CartPole-v1"]),
    "unknown setting": (vpg(learning_rate=1), ["learning_rate", "policy_learning_rate"]),
    "setting with no near name": (vpg(qqq=1), ["qqq", "num_envs"]),
    "no envs": (vpg(num_envs=0), ["num_envs", "0", "at least 1"]),
    "a true for a count": (vpg(num_envs=True), ["num_envs", "True", "at least 1"]),
    "half a step": (vpg(rollout_length=2.5), ["rollout_length", "2.5", "whole number"]),
    "no steps": (vpg(total_steps=0), ["total_steps", "0", "at least 1"]),
    "no baseline pass": (vpg(baseline_epochs=0), ["baseline_epochs", "0", "at least 1"]),
    "log_every that does not divide": (
        vpg(total_steps=2048 * 10, log_every=3),
        ["num_updates = 10", "log_every = 3", "2", "5"],
    ),
    "discount over 1": (vpg(discount=1.5), ["discount", "1.5", "between 0 and 1"]),
    "gae_lambda under 0": (vpg(gae_lambda=-0.5), ["gae_lambda", "-0.5", "between 0 and 1"]),
    "negative rate": (vpg(policy_learning_rate=-1e-3), ["policy_learning_rate", "-0.001"]),
    "rate of 0": (vpg(baseline_learning_rate=0), ["baseline_learning_rate", "0", "positive"]),
    "NaN rate": (vpg(policy_learning_rate=float("nan")), ["policy_learning_rate", "nan"]),
    "infinite rate": (vpg(policy_learning_rate=float("inf")), ["policy_learning_rate", "inf"]),
    "negative entropy bonus": (vpg(entropy_coef=-1), ["entropy_coef", "-1", "at least 0"]),
    "no gradient": (vpg(max_grad_norm=0), ["max_grad_norm", "0", "positive"]),
    "a list for a number": (vpg(discount=[0.9, 0.99]), ["discount", "[0.9, 0.99]", "sweep"]),
    "an array for a number": (
        vpg(discount=np.full((2, 2), 0.9)),
        ["discount", "0.9", "sweep"],
    ),
    "a word for a number": (vpg(discount="0.9"), ["discount", "'0.9'", "number"]),
    "empty hidden layer": (vpg(hidden=(64, 0)), ["hidden", "0", "at least 1"]),
    "a number for hidden": (vpg(hidden=64), ["hidden", "64"]),
    "unhashable policy": (vpg(policy=["mlp"]), ["policy", "['mlp']", "hashable"]),
    "policy that is no factory": (vpg(policy=3), ["policy", "int"]),
    "policy of bare logits": (vpg(policy=bare), ["policy", "sample", "purerl.Categorical"]),
    "policy that cannot be called": (vpg(policy=uncallable), ["policy", "callable"]),
    "policy that raises": (vpg(policy=needs_a_picture), ["policy", "three axes"]),
    "baseline of one-number arrays": (vpg(baseline=wide), ["baseline", "(1,)", "shape ()"]),
    "hidden beside own networks": (
        vpg(policy=bare, baseline=wide, hidden=(8,)),
        ["hidden", "no effect", "leave it out"],
    ),
    "optimizer that is no function": (vpg(optimizer="adam"), ["optimizer", "'adam'"]),
    "algorithm that is none": (vpg(algorithm="ppo"), ["algorithm", "'ppo'"]),
    "env that is none": (env(3), ["int", "reset"]),
    "env without reset": (env(Resetless()), ["Resetless", "reset"]),
    "env that is not hashable": (env(Unhashable()), ["Unhashable", "hashable", "frozen"]),
    "env that raises": (env(Raising()), ["Raising.reset", "no more"]),
    "space that is none": (env(Wordy()), ["left or right", "str", "discrete"]),
    "five values from step": (broken(lambda *step: step[:5]), ["Broken.step", "5", "6", "info"]),
    "float flag": (
        broken(lambda o, s, r, te, tr, i: (o, s, r, te.astype(float), tr, i)),
        ["Broken.step", "terminated", "float32", "boolean"],
    ),
    "flag of shape (1,)": (
        broken(lambda o, s, r, te, tr, i: (o, s, r, te, tr[None], i)),
        ["Broken.step", "truncated", "[1]", "boolean"],
    ),
    "flag that is None": (
        broken(lambda o, s, r, te, tr, i: (o, s, r, te, None, i)),
        ["Broken.step", "truncated", "boolean"],
    ),
    "reward that is a dict": (
        broken(lambda o, s, r, te, tr, i: (o, s, {"agent": r}, te, tr, i)),
        ["Broken.step", "reward", "number"],
    ),
    "reward of shape (1,)": (
        broken(lambda o, s, r, te, tr, i: (o, s, r[None], te, tr, i)),
        ["Broken.step", "reward", "[1]", "number"],
    ),
    "state whose dtype changes": (
        broken(lambda o, s, *rest: (o, s._replace(time=s.time.astype(float)), *rest)),
        ["Broken", "state", "time", "int32", "float32"],
    ),
    "state whose structure changes": (
        broken(lambda o, s, *rest: (o, tuple(s), *rest)),
        ["Broken", "state", "structure"],
    ),
    "observation whose shape changes": (
        broken(lambda o, *rest: (jnp.tile(o, 2), *rest)),
        ["Broken", "observation", "[1]", "[2]"],
    ),
    "observation that is a dict": (
        broken(lambda o, *rest: ({"x": o}, *rest)),
        ["Broken", "observation"],
    ),
    "no final observation": (
        broken(lambda *step: (*step[:5], {})),
        ["Broken.step", "final_observation"],
    ),
    "final observation of another shape": (
        broken(lambda *step: (*step[:5], {"final_observation": jnp.zeros(3)})),
        ["Broken", "final_observation", "[1]", "[3]"],
    ),
    "actions from a box": (env("Pendulum-v1"), ["policy", "discrete", "Box", "policy="]),
    "images for the default policy": (env(Picture()), ["policy", "vector", "4, 4, 3", "policy="]),
    "gymnax images": (env("Breakout-MinAtar"), ["policy", "vector", "10, 10, 4", "policy="]),
    "images for the default baseline": (
        env(Picture(), policy=lambda key, o, a: lambda obs: purerl.Categorical(jnp.zeros(2))),
        ["baseline", "vector", "baseline="],
    ),
    "sweep of nothing": (sweep(), ["sweep", "name"]),
    "sweep of an unknown name": (sweep(gamma=[0.9]), ["gamma", "discount"]),
    "sweep of a static setting": (sweep(num_envs=[8, 16]), ["num_envs", "discount"]),
    "sweep out of range": (sweep(discount=[0.9, 1.5]), ["discount", "1.5", "between 0 and 1"]),
    "sweep of no values": (sweep(discount=[]), ["discount", "[]", "at least one"]),
    "sweep of one number": (sweep(discount=0.9), ["discount", "0.9", "sequence"]),
    "sweep of a table": (sweep(discount=np.ones((2, 2))), ["discount", "1.", "sequence"]),
    "sweep of words": (sweep(discount=["low", "high"]), ["discount", "low"]),
}


@pytest.mark.parametrize(("build", "words"), REFUSED.values(), ids=list(REFUSED))
def test_bad_input_is_refused_in_one_line_that_names_it(build, words):
    with pytest.raises(ValueError, match=r"\S") as refusal:
        build()
    message = str(refusal.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


def test_a_field_replaced_later_is_checked_too():
    config = purerl.vpg(Probe(), total_steps=2048 * 4)
    with pytest.raises(ValueError, match="num_updates = 4 is not divisible by log_every = 3"):
        dataclasses.replace(config, log_every=3)


# Rollouts and steps


def test_a_reinforce_rollout_shorter_than_the_time_limit_is_warned_of():
    with pytest.warns(UserWarning, match=r"rollout_length = 128 .* limit of 500 .*use 500"):
        purerl.reinforce("CartPole-v1", rollout_length=128)


@pytest.mark.parametrize(
    "build",
    [
        lambda: purerl.reinforce("CartPole-v1", rollout_length=500),
        lambda: purerl.vpg("CartPole-v1", rollout_length=128),
    ],
)
def test_a_long_rollout_and_one_with_a_baseline_are_not_warned_of(build):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build()


def test_reinforce_rolls_out_to_the_time_limit_by_default():
    assert purerl.reinforce("CartPole-v1").rollout_length == 500


@pytest.mark.parametrize(
    ("total_steps", "env_steps"), [(1, 2048), (2048, 2048), (2049, 4096), (300_000, 301_056)]
)
def test_total_steps_round_up_to_whole_updates_and_env_steps_says_so(total_steps, env_steps):
    config = purerl.vpg(Probe(), total_steps=total_steps, num_envs=16, rollout_length=128)
    assert config.env_steps == env_steps
    assert config.num_updates * config.env_steps_per_update == env_steps


def test_records_are_updates_over_log_every():
    config = purerl.vpg(Probe(), total_steps=2048 * 6, log_every=3)
    assert (config.num_updates, config.num_records) == (6, 2)


# Static and traced


def static_half(config):
    return jax.tree.structure(config)


@pytest.mark.parametrize("env", ["CartPole-v1", Probe(length=3)])
def test_equal_settings_have_an_equal_static_half_with_an_equal_hash(env):
    one, two = purerl.vpg(env, num_envs=8), purerl.vpg(env, num_envs=8, discount=0.5)
    assert static_half(one) == static_half(two)
    assert hash(static_half(one)) == hash(static_half(two))


@pytest.mark.parametrize("other", [{"num_envs": 4}, {"hidden": (8,)}, {"log_every": 7}])
def test_other_static_settings_are_another_static_half(other):
    assert static_half(purerl.vpg(Probe())) != static_half(purerl.vpg(Probe(), **other))


def test_the_leaves_are_the_hyperparameters_and_env_params_in_numpy():
    config = purerl.vpg(Probe(), discount=0.5)
    leaves = jax.tree.leaves(config)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    assert leaves == [*jax.tree.leaves(config.hyper), *jax.tree.leaves(config.env_params)]
    assert config.hyper.discount.dtype == np.float32
    assert float(config.hyper.discount) == 0.5


def test_building_a_config_and_a_sweep_starts_no_backend():
    code = """
from probes import Probe
import purerl
config = purerl.vpg(Probe(), total_steps=10_000)
purerl.reinforce(Probe(), discount=0.9)
purerl.sweep(config, discount=[0.9, 0.99])
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
         + code],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["False"], done.stderr


# Sweeps


def test_a_sweep_is_every_combination_the_last_varying_fastest():
    config = purerl.vpg(Probe())
    configs, axes = purerl.sweep(
        config, discount=[0.5, 0.9], **{"env_params.reward_scale": [1, 2, 3]}
    )
    np.testing.assert_array_equal(
        configs.hyper.discount, np.array([0.5, 0.5, 0.5, 0.9, 0.9, 0.9], np.float32)
    )
    np.testing.assert_array_equal(configs.env_params.reward_scale, [1, 2, 3, 1, 2, 3])
    assert (axes.hyper.discount, axes.env_params.reward_scale) == (0, 0)
    assert axes.hyper.clip_eps is None
    assert configs.hyper.clip_eps == config.hyper.clip_eps


def test_each_setting_of_a_sweep_trains_as_it_does_alone():
    config = purerl.vpg(Probe(), num_envs=2, rollout_length=4, total_steps=8, hidden=(8,))
    configs, axes = purerl.sweep(config, **{"env_params.reward_scale": [1.0, 5.0]})
    train = jax.jit(jax.vmap(purerl.train, (None, axes)))
    _, metrics = train(jax.random.key(0), configs)
    np.testing.assert_array_equal(metrics.episode_return, [[1], [5]])
