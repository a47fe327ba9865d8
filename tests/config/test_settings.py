"""Settings: one place says what each is and its default; a config gives them back."""

import dataclasses
import inspect
import math
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest
from probes import Probe

import purerl
from purerl.cli.arguments import Bench
from purerl.cli.options import SHELL_SETTINGS, AgentOptions
from purerl.config import settings as settings_module
from purerl.config.factories import ALGORITHMS
from purerl.config.listing import settings_of
from purerl.config.presets import FACTORIES, PRESETS
from purerl.config.settings import (
    ALGORITHM_DEFAULTS,
    HYPER_DEFAULTS,
    OBJECT_SETTINGS,
    STATIC_DEFAULTS,
    Otherwise,
    all_settings,
    default_of,
)
from purerl.types import Hyperparams

PYTHON_ONLY = {
    "policy",
    "baseline",
    "algorithm",
    "optimizer",
    "policy_optimizer",
    "baseline_optimizer",
}
# Any that has every setting: a Gaussian policy, a baseline, a look-ahead.
ENVS = ["CartPole-v1", "Pendulum-v1"]


def leaves_equal(config, other):
    pairs = zip(jax.tree.leaves(config), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(one, two) for one, two in pairs)


def test_every_setting_is_in_every_list():
    names = {*all_settings()}
    assert names == {*STATIC_DEFAULTS, *HYPER_DEFAULTS} | PYTHON_ONLY | {
        "hidden",
        "std_from_obs",
        "squash",
        "clip_value",
        "own",
        "env_params",
    }
    assert {*HYPER_DEFAULTS} == {f.name for f in dataclasses.fields(Hyperparams)} - {"own"}
    assert {*SHELL_SETTINGS} == names - PYTHON_ONLY - {"own"}  # read by an own algorithm
    options = {field.name for field in dataclasses.fields(AgentOptions)}
    assert options == {*SHELL_SETTINGS} | {"env", "algo", "config", "like"}
    assert {field.name for field in dataclasses.fields(Bench)} & names <= {*SHELL_SETTINGS}
    assert all(setting.text.endswith(".") for setting in all_settings().values())


@pytest.mark.parametrize("algo", FACTORIES)
def test_signature_and_help_have_every_setting_with_the_default_that_is_used(algo):
    parameters = inspect.signature(FACTORIES[algo]).parameters
    assert [*parameters] == ["env", *all_settings()]
    # On Pendulum all are used but those that only discrete actions, or a baseline, would change.
    used = settings_of(FACTORIES[algo]("Pendulum-v1"))
    for name, value in used.items():
        shown = parameters[name].default
        follows = shown is None or isinstance(shown, Otherwise)
        assert follows or shown == value, name
        assert name in FACTORIES[algo].__doc__
    assert len(used) >= 17


@pytest.mark.parametrize("function", [purerl.preset, purerl.Config.replace])
def test_functions_that_pass_settings_on_show_them_too(function):
    shown = inspect.signature(function).parameters
    assert {*all_settings()} <= {*shown}
    assert "Learning rate of the policy's optimiser." in str(inspect.getdoc(function))


@pytest.mark.parametrize("function", [purerl.plan, purerl.bench])
def test_functions_that_send_settings_on_show_those_that_they_take(function):
    shown = {*inspect.signature(function).parameters}
    assert {*all_settings()} - shown - {"total_steps"} == {*OBJECT_SETTINGS}
    assert not shown & {*OBJECT_SETTINGS}


@pytest.mark.parametrize(("env", "algo"), [*PRESETS, *[(e, a) for e in ENVS for a in FACTORIES]])
def test_settings_of_a_config_make_an_equal_one(env, algo):
    config = purerl.preset(env, algo)
    again = FACTORIES[algo](env, **settings_of(config))
    assert again == config
    assert leaves_equal(again, config)


def test_settings_of_what_is_changed_make_an_equal_one():
    def own_optimizer(learning_rate, max_grad_norm):
        return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.sgd(learning_rate))

    config = purerl.ppo(
        "Pendulum-v1",
        total_steps=10_100,
        num_envs=4,
        hidden=(8,),
        squash=True,
        clip_value=True,
        baseline_optimizer=own_optimizer,
        env_params={"g": 5, "max_steps_in_episode": 50},
        schedule={"entropy_coef": "linear"},
        target_kl=0.02,
    )
    listed = settings_of(config)
    assert (listed["total_steps"], config.env_steps) == (10_100, 10_240)
    assert listed["env_params"] == {"g": 5.0, "max_steps_in_episode": 50}
    again = purerl.ppo("Pendulum-v1", **listed)
    assert again == config
    assert leaves_equal(again, config)


def test_what_has_no_effect_is_not_listed():
    listed = settings_of(purerl.vpg("CartPole-v1"))
    assert not {"gae_lambda", "clip_eps", "lookahead", "target_kl", "squash"} & {*listed}
    listed = settings_of(purerl.reinforce("CartPole-v1"))
    assert not any("baseline" in name for name in listed)


@pytest.mark.parametrize(("env", "algo"), list(PRESETS))
def test_a_change_of_defaults_moves_no_preset(env, algo, monkeypatch):
    before = purerl.preset(env, algo)
    others = {
        **{name: value + 1 for name, value in HYPER_DEFAULTS.items() if name != "gae_lambda"},
        **{name: not value for name, value in STATIC_DEFAULTS.items() if isinstance(value, bool)},
        **{
            "discount": 0.5,
            "gae_lambda": 0.5,
            "epochs": 3,
            "baseline_epochs": 3,
            "num_minibatches": 16,
            "hidden": (8,),
        },
        **{"num_envs": 32, "total_steps": 1, "schedule": {"entropy_coef": "linear"}},
    }
    del others["target_kl"]
    if algo == "ppo":
        others["target_kl"] = 0.01
        others |= {"std_from_obs": True, "squash": True}
    others.pop("log_every", None)
    monkeypatch.setattr("purerl.config.factories.DEFAULTS", {**settings_module.DEFAULTS, **others})
    monkeypatch.setattr(
        "purerl.config.factories.ALGORITHM_DEFAULTS", {algo: {} for algo in ALGORITHM_DEFAULTS}
    )
    after = purerl.preset(env, algo)
    used = settings_of(before)
    assert settings_of(after) == used
    assert {*used} & {*others} == {*others} & {*settings_of(purerl.preset(env, algo))}


def test_where_settings_come_from():
    asked = purerl.preset("CartPole-v1", "ppo", num_envs=4).asked
    assert [asked.source(name) for name in ("num_envs", "rollout_length", "log_every")] == [
        "given",
        "preset",
        "default",
    ]
    changed = purerl.preset("CartPole-v1", "ppo").replace(discount=0.9, optimizer=_sgd).asked
    assert changed.source("discount") == "given"
    assert changed.source("policy_optimizer") == "given"


def _sgd(learning_rate, max_grad_norm):
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.sgd(learning_rate))


def test_a_preset_takes_an_optimizer_that_reads_nothing_of_what_was_tuned():
    def fixed(learning_rate, max_grad_norm):
        return optax.sgd(learning_rate)

    config = purerl.preset("CartPole-v1", "vpg", optimizer=fixed)
    assert "max_grad_norm" not in settings_of(config)
    with pytest.raises(ValueError, match=r"max_grad_norm = 0\.1 has no effect"):
        purerl.preset("CartPole-v1", "vpg", optimizer=fixed, max_grad_norm=0.1)


def test_a_config_is_shown_in_a_few_lines():
    shown = repr(purerl.preset("Pendulum-v1", "ppo", num_envs=8, optimizer=_sgd))
    assert shown.splitlines()[0] == (
        "Config(ppo on Pendulum-v1: 1,954 updates of 8 envs x 128 steps = 2,000,896 steps"
    )
    assert "  given: num_envs=8, policy_optimizer=_sgd, baseline_optimizer=_sgd" in shown
    assert "discount=0.98" in shown
    assert "clip_eps" not in shown  # a default
    assert len(shown.splitlines()) == 3
    configs, _ = purerl.sweep(purerl.vpg("CartPole-v1", discount=0.9), discount=[0.9, 0.99])
    assert "discount=2 values" in repr(configs)
    seen = []
    jax.jit(lambda rate: seen.append(repr(purerl.vpg("CartPole-v1", discount=rate))))(0.9)
    assert "discount=traced" in seen[0]
    tuned = purerl.preset("CartPole-v1", "vpg")
    swept, axes = purerl.sweep(tuned, policy_learning_rate=[1e-3, 3e-3])
    assert "policy_learning_rate=2 values" in repr(swept)
    assert repr(axes)
    jax.jit(lambda config: seen.append(repr(config)))(tuned)
    assert "policy_learning_rate=traced" in seen[1]


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"grav": 3}, r"env_params\.grav is no parameter of this environment; use max_steps_in"),
        *(
            (
                {"max_steps_in_episode": value},
                r"max_steps_in_episode = \S+ does not fit its dtype int",
            )
            for value in (2.5, 2**32, 1e10, math.inf, math.nan, True)
        ),
        ({"gravity": 1e300}, r"env_params\.gravity = 1e\+300 does not fit its dtype float"),
        ({"gravity": "high"}, r"env_params\.gravity = 'high' must be one number"),
        ({"gravity": [1.0, 2.0]}, r"env_params\.gravity = \[1\.0, 2\.0\] must be one number"),
    ],
)
def test_parameters_that_there_are_not_are_refused_by_name(params, line):
    with pytest.raises(ValueError, match=line):
        purerl.vpg("CartPole-v1", env_params=params)


def test_parameters_by_name_change_only_those():
    config = purerl.vpg("CartPole-v1", env_params={"gravity": 12, "max_steps_in_episode": 200})
    _, default = purerl.make_env("CartPole-v1")
    whole = purerl.vpg(
        "CartPole-v1", env_params=default.replace(gravity=12.0, max_steps_in_episode=200)
    )
    assert config == whole
    assert leaves_equal(config, whole)
    changed = config.replace(env_params={"masscart": 2.0})
    assert (changed.env_params.gravity, changed.env_params.masscart) == (12, 2)


class Tuple(NamedTuple):
    length: float = 5.0
    max_steps_in_episode: int = 9


@pytest.mark.parametrize(
    ("default", "params"),
    [
        ({"length": 5.0, "limit": 2}, {"length": 6.0}),
        (Tuple(), {"length": 6}),
        ((5.0, 2.0), (6.0, 2.0)),
        (np.arange(3.0), np.ones(3)),
    ],
    ids=["a mapping", "a named tuple", "a tuple", "an array"],
)
def test_parameters_of_any_form_are_listed_and_given_again(default, params):
    env = WithParams(Probe(limit=True), jax.tree.map(lambda x: x, default))
    config = purerl.vpg(env, env_params=params, num_envs=2, rollout_length=4, total_steps=16)
    again = purerl.vpg(env, **settings_of(config))
    assert again == config
    assert leaves_equal(again, config)
    assert jax.tree.structure(config.env_params) == jax.tree.structure(default)


class WithParams:
    """A probe with other parameters, which it never reads."""

    def __init__(self, probe, default_params):
        self.probe, self.default_params = probe, default_params

    def observation_space(self, params):
        return self.probe.observation_space(self.probe.default_params)

    def action_space(self, params):
        return self.probe.action_space(self.probe.default_params)

    def reset(self, key, params):
        return self.probe.reset(key, self.probe.default_params)

    def step(self, key, state, action, params):
        return self.probe.step(key, state, action, self.probe.default_params)


def test_none_means_what_follows_from_other_settings():
    assert purerl.ppo("CartPole-v1", epochs=3, baseline_epochs=None).baseline_epochs == 3
    assert purerl.vpg("CartPole-v1", rollout_length=None).rollout_length == 128
    assert purerl.a2c("CartPole-v1", rollout_length=None).rollout_length == 32
    assert purerl.reinforce("CartPole-v1", rollout_length=None) == purerl.reinforce("CartPole-v1")
    given = purerl.ppo("CartPole-v1", baseline_epochs=3)
    assert given.replace(epochs=2).baseline_epochs == 3
    assert given.replace(epochs=2, baseline_epochs=None).replace(epochs=5).baseline_epochs == 5
    assert purerl.vpg("CartPole-v1", epochs=10).replace(epochs=1).baseline_epochs == 10
    small: Any = {"num_envs": 64, "total_steps": 1_000_000}
    again = purerl.reinforce("CartPole-v1", rollout_length=8).replace(rollout_length=None)
    assert again.replace(**small) == purerl.reinforce("CartPole-v1", **small)


def test_algorithms_have_the_names_of_their_factories():
    assert {*ALGORITHMS} == {*FACTORIES} == {*ALGORITHM_DEFAULTS}
    assert default_of("epochs", "ppo") == 4
