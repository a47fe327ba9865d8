"""Settings that are changed: as if the factory had been called with them."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from probes import Probe

import purerl
from purerl.losses import clipped_squared_error

SMALL: Any = {"num_envs": 2, "rollout_length": 4, "total_steps": 8 * 3, "hidden": (4,)}

CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "the budget stays": (purerl.vpg, {"num_envs": 4}),
    "the budget": (purerl.vpg, {"total_steps": 300_001}),
    "what is traced": (purerl.ppo, {"discount": 0.9, "policy_learning_rate": 1e-4}),
    "networks": (purerl.ppo, {"hidden": (8,)}),
    "what follows the epochs": (purerl.ppo, {"epochs": 7}),
    "what follows the budget": (purerl.reinforce, {"total_steps": 10_000_000}),
    "what follows the environments": (purerl.reinforce, {"num_envs": 64}),
    "a clipped value": (purerl.ppo, {"clip_value": True}),
    "a schedule": (purerl.ppo, {"schedule": {"policy_learning_rate": "linear"}}),
    "records": (purerl.vpg, {"log_every": 7}),
    "a baseline": (purerl.reinforce, {"algorithm": purerl.VPG, "rollout_length": 128}),
    "nothing": (purerl.a2c, {}),
}


def assert_same_config(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert eqx.tree_equal(a, b)
    assert dataclasses.astuple(a.asked) == dataclasses.astuple(b.asked)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_what_the_factory_makes_of_it(change):
    factory, settings = CHANGES[change]
    assert_same_config(
        factory("CartPole-v1").replace(**settings), factory("CartPole-v1", **settings)
    )


def test_what_was_given_follows_nothing():
    ppo = purerl.ppo("CartPole-v1", baseline_epochs=4).replace(epochs=7)
    assert (ppo.epochs, ppo.baseline_epochs) == (7, 4)
    reinforce = purerl.reinforce("CartPole-v1").replace(rollout_length=64)
    assert reinforce.replace(total_steps=10_000_000).rollout_length == 64
    assert purerl.a2c("CartPole-v1").replace(epochs=2).baseline_epochs == 4
    clipped = purerl.ppo("CartPole-v1", clip_value=True)
    assert clipped.replace(epochs=2).algorithm.value_loss is clipped_squared_error
    assert_same_config(
        clipped.replace(clip_value=False), purerl.ppo("CartPole-v1", clip_value=False)
    )


def test_a_config_that_was_changed_by_hand_keeps_the_change():
    config = purerl.vpg("CartPole-v1")
    config = eqx.tree_at(lambda c: c.hyper.discount, config, np.float32(0.5))
    assert config.replace(num_envs=4).hyper.discount == np.float32(0.5)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name": ({"nun_envs": 3}, "nun_envs is not a setting; did you mean num_envs"),
    "a value": ({"num_envs": 0}, "num_envs = 0 must be a whole number of at least 1"),
    "no effect": ({"gae_lambda": 0.9}, "gae_lambda = 0.9 has no effect: vpg uses the reward-to-go"),
    "networks": ({"policy": purerl.ppo, "hidden": (4,)}, "policy"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_factory_refuses_is_refused(case):
    settings, line = REFUSED[case]
    with pytest.raises(ValueError, match=line) as error:
        purerl.vpg("CartPole-v1").replace(**settings)
    assert "\n" not in str(error.value)


def test_a_field_that_would_change_the_budget_silently_is_refused():
    config = purerl.vpg("CartPole-v1")
    with pytest.raises(ValueError, match=r"total_steps = 300000; use config\.replace"):
        dataclasses.replace(config, num_envs=4)


def test_another_budget_of_as_many_updates_is_the_same_program():
    a, b = (purerl.vpg("CartPole-v1", total_steps=steps) for steps in (300_000, 300_100))
    assert (a.asked.total_steps, b.asked.total_steps) == (300_000, 300_100)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert hash(jax.tree.structure(a)) == hash(jax.tree.structure(b))


def test_where_a_setting_comes_from_is_known():
    asked = purerl.preset("CartPole-v1", "ppo", num_envs=8).asked
    sources = {name: asked.source(name) for name in ("num_envs", "rollout_length", "log_every")}
    assert sources == {"num_envs": "given", "rollout_length": "preset", "log_every": "default"}
    assert (
        purerl.preset("CartPole-v1", "ppo").replace(discount=0.9).asked.source("discount")
        == "given"
    )


def test_a_config_is_made_within_a_users_jit():
    def entropy(discount):
        made = purerl.vpg(Probe(), discount=discount, **SMALL)
        changed = purerl.vpg(Probe(), **SMALL).replace(discount=discount)
        assert made.hyper.discount.dtype == changed.hyper.discount.dtype == np.float32
        outcomes = [purerl.train(jax.random.key(0), config) for config in (made, changed)]
        return [metrics.value_loss for _, metrics in outcomes]

    of_made, of_changed = jax.jit(entropy)(0.5)
    _, metrics = jax.jit(purerl.train)(
        jax.random.key(0), purerl.vpg(Probe(), discount=0.5, **SMALL)
    )
    np.testing.assert_allclose(of_made, metrics.value_loss, rtol=1e-5)
    np.testing.assert_allclose(of_changed, metrics.value_loss, rtol=1e-5)
