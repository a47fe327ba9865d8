"""Hyperparameters of an own loss or estimate: like the others in all that is done with them."""

import json
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
from purerl.losses import squared_error

ENV: Any = Probe("match", length=3)
SIZES: Any = {"num_envs": 4, "rollout_length": 8, "total_steps": 128, "hidden": (4,)}


def scaled_error(value, old_value, value_target, hyper):
    return hyper.own["scale"] * squared_error(value, old_value, value_target, hyper)


SCALED = purerl.VPG._replace(value_loss=scaled_error)


def config_of(scale=2.0, **settings):
    return purerl.vpg(ENV, algorithm=SCALED, own={"scale": scale}, **{**SIZES, **settings})


def value_loss(config):
    return jax.jit(purerl.train)(jax.random.key(0), config)[1].value_loss


def test_an_own_loss_reads_its_own_hyperparameter():
    plain = value_loss(purerl.vpg(ENV, **SIZES))
    np.testing.assert_allclose(value_loss(config_of(1.0)), plain, rtol=1e-5)
    np.testing.assert_allclose(value_loss(config_of(2.0))[0], 2 * plain[0], rtol=0.1)


def test_a_new_value_does_not_compile_again_and_is_another_setting_of_a_sweep():
    train = jax.jit(chex.assert_max_traces(purerl.train, n=1))
    key = jax.random.key(0)
    alone = [train(key, config_of(scale))[1].value_loss for scale in (1.0, 2.0)]
    values: Any = {"own.scale": [1.0, 2.0]}
    configs, axes = purerl.sweep(config_of(), **values)
    together = jax.vmap(purerl.train, (None, axes))(key, configs)[1].value_loss
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5)


def test_a_schedule_changes_it():
    falling = value_loss(config_of(schedule={"own.scale": "linear"}, epochs=1))
    constant = value_loss(config_of(epochs=1))
    np.testing.assert_allclose(falling[0], constant[0], rtol=1e-6)
    assert not np.allclose(falling[1:], constant[1:])


def test_it_has_a_derivative():
    def loss(scale):
        config = eqx.tree_at(lambda config: config.hyper.own["scale"], config_of(), scale)
        return purerl.train(jax.random.key(0), config)[1].value_loss[0]

    assert float(jax.grad(loss)(jnp.float32(2.0))) > 0


def test_replace_and_the_header_keep_it(tmp_path):
    config = config_of().replace(discount=0.5)
    assert float(config.hyper.own["scale"]) == 2
    assert float(config.replace(own={"scale": 3}).hyper.own["scale"]) == 3
    run = purerl.run(config, seeds=2, directory=tmp_path, progress=False)
    described = json.loads((tmp_path / "config.json").read_text())["config"]["hyper"]
    assert described["own"] == {"scale": 2.0}
    again = purerl.resume(tmp_path, config, progress=False)
    assert_bitwise_equal(again.states, run.states)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "that nothing reads": ({"own": {"kl_coef": 0.1}}, "own.kl_coef = 0.1 has no effect: vpg never"),
    "no numbers by name": ({"own": 3}, "own = 3 must be numbers by name"),
    "no number": ({"own": {"kl_coef": "high"}}, "own.kl_coef = 'high' must be a number"),
    "NaN": ({"own": {"scale": np.nan}, "algorithm": SCALED}, "own.scale = nan must be a number"),
    "no name": ({"own": {"kl coef": 0.1}}, "own: 'kl coef' is no name"),
    "missing": ({"algorithm": SCALED}, "value_loss: 'scale'"),
    "a schedule of none": ({"schedule": {"own.x": "linear"}}, "'own.x' is none of the own"),
    "no baseline": (
        {"algorithm": purerl.VPG._replace(value_loss=None)},
        "value_loss is None; without one: _replace",
    ),
}


@pytest.mark.parametrize(("settings", "line"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_is_refused(settings, line, without_type_checks):
    with pytest.raises(ValueError, match=line) as error:
        purerl.vpg(ENV, **SIZES, **settings)
    assert "\n" not in str(error.value)


def test_an_algorithm_can_be_without_a_baseline():
    bare = purerl.PPO._replace(estimate=purerl.REINFORCE.estimate, value_loss=None)
    state, metrics = jax.jit(purerl.train)(
        jax.random.key(0), purerl.ppo(ENV, algorithm=bare, **SIZES)
    )
    assert state.learner.baseline is None
    assert np.isfinite(metrics.policy_loss).all()
