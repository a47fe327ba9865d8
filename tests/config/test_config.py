"""Settings: what is refused before compiling, and in which words; what a config holds."""

import dataclasses
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ROOT
from probes import Probe

import purerl

pytestmark = pytest.mark.usefixtures("without_type_checks")


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


class Boundless(Probe):
    def action_space(self, params):
        return purerl.Box(-np.inf, np.inf, (2,))


class NoArguments(Probe):
    def action_space(self):
        return purerl.Discrete(2)


class ManyChoices(Probe):
    def action_space(self, params):
        return types.SimpleNamespace(n=np.array([2, 3]))


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


class Halves(eqx.Module):
    """A distribution whose actions are fractions, where the environment counts."""

    def sample(self, key):
        return jnp.float32(0.5)

    def mode(self):
        return jnp.float32(0.5)

    def log_prob(self, action):
        return jnp.float32(0)

    def entropy(self):
        return jnp.float32(0)


class Halving(eqx.Module):
    def __call__(self, obs):
        return Halves()


def halving(key, obs_space, action_space):
    return Halving()


def uncallable(key, obs_space, action_space):
    return eqx.Module()


def needs_a_picture(key, obs_space, action_space):
    raise IndexError("an observation of three axes, please\nand more")


def vpg(**settings):
    return lambda: purerl.vpg(Probe(), **settings)


def all_count(rollout, value, next_value, hyper):
    return purerl.Estimate(rollout.reward, rollout.reward, jnp.ones_like(rollout.reward))


def reinforce(**settings):
    return lambda: purerl.reinforce(Probe(), **settings)


def a2c(**settings):
    return lambda: purerl.a2c(Probe(), **settings)


def ppo(**settings):
    return lambda: purerl.ppo(Probe(), **settings)


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
    "discount over 1": (vpg(discount=1.5), ["discount", "1.5", "between 0 and 1"]),
    "gae_lambda under 0": (a2c(gae_lambda=-0.5), ["gae_lambda", "-0.5", "between 0 and 1"]),
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
    "policy of fractional actions": (
        vpg(policy=halving),
        ["policy", "action", "float32", "integer"],
    ),
    "policy that cannot be called": (vpg(policy=uncallable), ["policy", "callable"]),
    "policy that raises": (vpg(policy=needs_a_picture), ["policy", "three axes"]),
    "baseline of one-number arrays": (vpg(baseline=wide), ["baseline", "(1,)", "shape ()"]),
    "hidden beside own networks": (
        vpg(policy=bare, baseline=wide, hidden=(8,)),
        ["hidden", "no effect", "leave it out"],
    ),
    "baseline without one": (reinforce(baseline=wide), ["baseline", "no effect", "leave it out"]),
    "baseline epochs without a baseline": (
        reinforce(baseline_epochs=3),
        ["baseline_epochs", "3", "no effect", "leave it out"],
    ),
    "baseline rate without a baseline": (
        reinforce(baseline_learning_rate=0.1),
        ["baseline_learning_rate", "0.1", "no effect"],
    ),
    "lookahead with a baseline": (vpg(lookahead=5), ["lookahead = 5", "no effect", "vpg drops no"]),
    "lookahead of an own estimate": (
        reinforce(algorithm=purerl.REINFORCE._replace(estimate=all_count), lookahead=5),
        ["lookahead = 5", "no effect", "leave it out"],
    ),
    "no lookahead": (reinforce(lookahead=0), ["lookahead = 0", "at least 1"]),
    "half a lookahead": (reinforce(lookahead=2.5), ["lookahead = 2.5", "whole number"]),
    "lookahead beyond the rollout": (
        reinforce(rollout_length=8, lookahead=9),
        ["lookahead = 9", "rollout_length = 8", "use 8 or less"],
    ),
    "sweep of a lookahead": (
        lambda: purerl.sweep(purerl.reinforce(Probe()), lookahead=[2, 4]),
        ["lookahead", "cannot be swept"],
    ),
    "optimizer that is no function": (vpg(optimizer="adam"), ["optimizer", "'adam'"]),
    "algorithm that is none": (vpg(algorithm="ppo"), ["algorithm", "'ppo'"]),
    "minibatches that do not divide": (
        ppo(num_envs=10, rollout_length=100, num_minibatches=3),
        ["num_envs * rollout_length = 1000", "num_minibatches = 3", "2, 4, 5"],
    ),
    "no epochs": (ppo(epochs=0), ["epochs", "0", "at least 1"]),
    "KL of 0": (ppo(target_kl=0), ["target_kl", "0", "positive"]),
    "a schedule of what has none": (
        ppo(schedule={"discount": "linear"}),
        ["schedule", "'discount'", "clip_eps"],
    ),
    "a name for a schedule": (
        ppo(schedule="clip_eps"),
        ["schedule", "'clip_eps'", "shapes by name"],
    ),
    "a shape that there is not": (
        ppo(schedule={"clip_eps": "cosine"}),
        ["schedule", "clip_eps = 'cosine'", "use linear"],
    ),
    "a schedule of what is not read": (
        reinforce(schedule={"baseline_learning_rate": "linear"}),
        ["schedule", "'baseline_learning_rate'", "no effect", "leave it out"],
    ),
    "a word for a flag": (ppo(normalize_obs="yes"), ["normalize_obs", "'yes'", "True or False"]),
    "a number for a flag": (ppo(clip_value=1), ["clip_value", "1", "True or False"]),
    "lambda without GAE": (vpg(gae_lambda=0.9), ["gae_lambda", "0.9", "no effect", "leave it"]),
    "clip without clipping": (a2c(clip_eps=0.1), ["clip_eps", "0.1", "no effect", "leave it"]),
    "KL limit of one step": (vpg(target_kl=0.1), ["target_kl", "0.1", "no effect", "one step"]),
    "clipped value of no baseline": (reinforce(clip_value=True), ["clip_value", "leave it out"]),
    "squashed names": (ppo(squash=True), ["squash = True", "no effect", "Discrete(2)"]),
    "squash beside an own policy": (ppo(policy=bare, squash=True), ["squash", "no effect"]),
    "squash without bounds": (
        lambda: purerl.ppo(Boundless(), squash=True),
        ["squash = True", "bounds", "leave it out"],
    ),
    "normalised names": (
        lambda: purerl.ppo("FrozenLake-misc", normalize_obs=True),
        ["normalize_obs = True", "Discrete(16)", "leave it out"],
    ),
    "env that is none": (env(3), ["int", "reset"]),
    "env without reset": (env(Resetless()), ["Resetless", "reset"]),
    "env that is not hashable": (env(Unhashable()), ["Unhashable", "hashable", "frozen"]),
    "env that raises": (env(Raising()), ["Raising.reset", "no more"]),
    "space that is none": (env(Wordy()), ["left or right", "str", "discrete"]),
    "space of the wrong arity": (env(NoArguments()), ["NoArguments.action_space", "argument"]),
    "space of several choices": (env(ManyChoices()), ["ManyChoices.action_space", "[2, 3]"]),
    "estimate of the wrong arity": (
        vpg(algorithm=purerl.VPG._replace(estimate=lambda rollout: 0)),
        ["algorithm", "estimate", "argument"],
    ),
    "estimate that is none": (
        vpg(algorithm=purerl.VPG._replace(estimate=lambda *args: jnp.zeros(2))),
        ["algorithm", "estimate", "purerl.Estimate"],
    ),
    "loss that is a mean": (
        vpg(algorithm=purerl.VPG._replace(value_loss=lambda v, o, t, h: jnp.mean((v - t) ** 2))),
        ["algorithm", "value_loss", "one number for each"],
    ),
    "loss that raises": (
        vpg(algorithm=purerl.VPG._replace(policy_loss=lambda *args: 1 / 0)),
        ["algorithm", "policy_loss", "division by zero"],
    ),
    "sweep of unequal lengths": (
        sweep(zip=True, discount=[0.9, 0.8], entropy_coef=[0.1]),
        ["zip", "discount has 2", "entropy_coef has 1"],
    ),
    "sweep with a word for zip": (sweep(zip="yes", discount=[0.9]), ["zip", "'yes'"]),
    "sweep of a range that is not drawn": (
        sweep(discount=purerl.Uniform(0.8, 0.9)),
        ["discount", "Uniform", "draws="],
    ),
    "sweep of no draws": (sweep(draws=0, discount=[0.9]), ["draws", "0", "at least 1"]),
    "sweep of a range upside down": (
        sweep(draws=2, discount=purerl.Uniform(0.9, 0.8)),
        ["discount", "0.9", "lower one first"],
    ),
    "sweep of a logarithm of 0": (
        sweep(draws=2, entropy_coef=purerl.LogUniform(0.0, 0.8)),
        ["entropy_coef", "0.0", "above 0"],
    ),
    "sweep without effect": (
        lambda: purerl.sweep(purerl.reinforce(Probe()), baseline_learning_rate=[0.1, 0.2]),
        ["baseline_learning_rate", "no effect"],
    ),
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
    "sweep of nothing": (sweep(), ["sweep", "name"]),
    "sweep of an unknown name": (sweep(gamma=[0.9]), ["gamma", "discount"]),
    "sweep of a static setting": (sweep(num_envs=[8, 16]), ["num_envs", "discount"]),
    "sweep out of range": (sweep(discount=[0.9, 1.5]), ["discount", "1.5", "between 0 and 1"]),
    "sweep of no values": (sweep(discount=[]), ["discount", "[]", "at least one"]),
    "sweep of one number": (sweep(discount=0.9), ["discount", "0.9", "sequence"]),
    "sweep of a table": (sweep(discount=np.ones((2, 2))), ["discount", "1.", "sequence"]),
    "sweep of half steps": (
        lambda: purerl.sweep(
            purerl.vpg("CartPole-v1"),
            **{"env_params.max_steps_in_episode": [2.5]},  # pyright: ignore[reportArgumentType]
        ),
        ["env_params.max_steps_in_episode", "2.5", "int32"],
    ),
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
    with pytest.raises(ValueError, match="log_every = 0 must be"):
        dataclasses.replace(config, log_every=0)


# Rollouts and steps


@pytest.mark.parametrize(
    ("limit", "total_steps", "length"),
    [
        (5, 300, 10),  # never below twice the limit for the sake of 128
        (31, 10_000, 62),
        (40, 10**6, 80),
        (100, 100_000, 200),  # 100 would be below 128
        (500, 1_000_000, 1000),
        (500, 16 * 49 * 1000 + 1, 1000),  # rounded up, 50 updates
        (500, 16 * 49 * 1000, 500),
        (500, 300_000, 250),
        (1000, 10**8, 1024),
        (1000, 100_000, 128),
        (np.inf, 100_000, 128),
    ],
)
def test_reinforce_rolls_out_twice_the_time_limit_unless_that_leaves_too_few_updates(
    limit, total_steps, length
):
    params = Probe().default_params._replace(max_steps_in_episode=limit)
    config = purerl.reinforce(Probe(), env_params=params, total_steps=total_steps)
    assert config.rollout_length == length
    swapped = {"env_params": params, "total_steps": total_steps, "algorithm": purerl.REINFORCE}
    assert purerl.vpg(Probe(), **swapped).rollout_length == length


def test_fewer_environments_leave_longer_rollouts():
    for num_envs, length in ((4, 1000), (8, 500), (16, 250)):
        assert purerl.reinforce("CartPole-v1", num_envs=num_envs).rollout_length == length


def test_a_short_rollout_is_not_warned_of():
    purerl.reinforce("CartPole-v1", rollout_length=16)  # a warning fails the test


def test_a_replaced_rollout_must_hold_the_lookahead():
    config = purerl.reinforce(Probe(), rollout_length=64, lookahead=40)
    assert config.replace(rollout_length=40).lookahead == 40
    with pytest.raises(ValueError, match="lookahead = 40 is beyond rollout_length = 39; use 39"):
        config.replace(rollout_length=39)


def test_a_preset_takes_an_algorithm_without_a_baseline():
    config = purerl.preset("CartPole-v1", "vpg", algorithm=purerl.REINFORCE, rollout_length=500)
    assert config.baseline is None


def test_a_sweep_that_is_not_mapped_is_refused():
    configs, _ = purerl.sweep(purerl.vpg(Probe(), num_envs=2), discount=[0.1, 0.9])
    for use in (purerl.init, purerl.train):
        with pytest.raises(ValueError, match=r"discount has shape \(2,\).*vmap"):
            jax.jit(use)(jax.random.key(0), configs)
    values = {"env_params.reward_scale": [1.0, 2.0]}
    swept, _ = purerl.sweep(purerl.vpg(Probe(), num_envs=2), **values)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"reward_scale has shape \(2,\).*vmap"):
        jax.jit(purerl.train)(jax.random.key(0), swept)
    with pytest.raises(ValueError, match=r"discount has shape \(2,\).*vmap"):
        purerl.train_seeds(purerl.seed_keys(0, 2), configs)


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
    config = purerl.vpg(Probe(), total_steps=2048 * 147, log_every=10)
    assert (config.num_updates, config.num_records) == (147, 15)


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


def test_a_lookahead_is_static_and_equal_ones_are_equal():
    half = purerl.reinforce(Probe())
    one, two = purerl.reinforce(Probe(), lookahead=4), purerl.reinforce(Probe(), lookahead=4)
    assert static_half(one) == static_half(two) != static_half(half)
    assert hash(static_half(one)) == hash(static_half(two))


def test_the_leaves_are_the_hyperparameters_and_env_params_in_numpy():
    config = purerl.vpg(Probe(), discount=0.5)
    leaves = jax.tree.leaves(config)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    assert leaves == [*jax.tree.leaves(config.hyper), *jax.tree.leaves(config.env_params)]
    assert config.hyper.discount.dtype == np.float32
    assert float(config.hyper.discount) == 0.5


def test_building_a_config_and_a_sweep_starts_no_backend():
    code = """
from commands import ROOT
from probes import Probe
import purerl
config = purerl.vpg(Probe(), total_steps=10_000)
purerl.reinforce(Probe(), discount=0.9)
purerl.sweep(config, discount=[0.9, 0.99])
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'tests/support')!r})\n"
         + code],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["False"], done.stderr


# Sweeps


def test_a_sweep_is_every_combination_the_last_varying_fastest():
    config = purerl.vpg(Probe())
    configs, axes = purerl.sweep(
        config,
        discount=[0.5, 0.9],
        **{"env_params.reward_scale": [1, 2, 3]},  # pyright: ignore[reportArgumentType]
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
    configs, axes = purerl.sweep(config, **{"env_params.reward_scale": [1.0, 5.0]})  # pyright: ignore[reportArgumentType]
    train = jax.jit(jax.vmap(purerl.train, (None, axes)))
    _, metrics = train(jax.random.key(0), configs)
    np.testing.assert_array_equal(metrics.episode_return, [[1], [5]])
