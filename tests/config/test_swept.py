"""A sweep's config can be looked at and changed; and the kinds of numbers that settings take."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from probes import Probe

import purerl

ENV: Any = Probe("match", length=3, limit=True)
SIZES: Any = {"num_envs": 4, "rollout_length": 8, "total_steps": 64, "hidden": (4,)}
CONFIG = purerl.ppo(ENV, num_minibatches=2, epochs=2, **SIZES)
SWEEPS: dict[str, dict[str, Any]] = {
    "a rate": {"policy_learning_rate": [1e-3, 1e-2, 1e-1]},
    "what a loss reads": {"clip_eps": [0.1, 0.2, 0.3], "gae_lambda": [0.9]},
    "an environment's": {"env_params.max_steps_in_episode": [2.0, 3.0, 4.0]},
}


@pytest.fixture(params=SWEEPS)
def swept(request):
    return purerl.sweep(CONFIG, **SWEEPS[request.param])


def test_its_environment_and_repr_are_those_of_its_settings(swept):
    configs, _ = swept
    assert configs.env_spec == CONFIG.env_spec
    assert "Probe" in repr(configs)
    assert configs.num_records == CONFIG.num_records


def test_what_is_not_swept_can_be_replaced(swept):
    configs, axes = swept
    changed = configs.replace(discount=0.5, entropy_coef=0.01)
    expected = eqx.tree_at(
        lambda c: (c.hyper.discount, c.hyper.entropy_coef),
        configs,
        (np.float32(0.5), np.float32(0.01)),
    )
    assert eqx.tree_equal(jax.tree.map(np.asarray, changed), jax.tree.map(np.asarray, expected))
    trained = jax.vmap(purerl.train, (None, axes))
    shapes = jax.eval_shape(trained, jax.random.key(0), changed)[1]
    assert shapes.policy_loss.shape == (3, 2)


def test_own_numbers_of_a_sweep_stay():
    algorithm = purerl.VPG._replace(
        value_loss=lambda value, old, target, hyper: hyper.own["scale"] * (value - target) ** 2
    )
    config = purerl.vpg(ENV, algorithm=algorithm, own={"scale": 1.0}, **SIZES)
    values: Any = {"own.scale": [1.0, 2.0]}
    configs, _ = purerl.sweep(config, **values)
    np.testing.assert_array_equal(configs.replace(discount=0.5).hyper.own["scale"], [1, 2])


@pytest.mark.parametrize(
    "settings",
    [{"policy_learning_rate": 0.1}, {"num_envs": 8}, {"total_steps": 128}, {"hidden": (8,)}],
)
def test_what_the_axes_would_not_fit_is_refused_in_one_line(settings):
    configs, _ = purerl.sweep(CONFIG, **SWEEPS["a rate"])
    line = r"leave a sweep over policy_learning_rate without .*: purerl\.sweep\(config\.replace\("
    with pytest.raises(ValueError, match=line) as error:
        configs.replace(**settings)
    assert "\n" not in str(error.value)


def test_a_sweep_of_a_sweep_is_refused_in_one_line():
    configs, _ = purerl.sweep(CONFIG, **SWEEPS["a rate"])
    with pytest.raises(ValueError, match="a sweep's, over policy_learning_rate; give all names"):
        purerl.sweep(configs, discount=[0.9, 0.99])


def test_several_values_are_still_refused():
    configs, _ = purerl.sweep(CONFIG, **SWEEPS["a rate"])
    with pytest.raises(ValueError, match=r"discount = .* several values go to purerl\.sweep"):
        configs.replace(**{"discount": [0.9, 0.99]})  # pyright: ignore[reportArgumentType]


INTS = {
    "total_steps": 64,
    "num_envs": 4,
    "rollout_length": 8,
    "epochs": 2,
    "baseline_epochs": 3,
    "num_minibatches": 2,
    "log_every": 2,
}


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_numpy_ints_are_ints(dtype):
    numpy: Any = {name: dtype(value) for name, value in INTS.items()}
    plain: Any = INTS
    made, expected = (purerl.ppo(ENV, **each) for each in (numpy, plain))
    changed = purerl.ppo(ENV, **(plain | {"total_steps": 640})).replace(**numpy)
    for config in (made, changed):
        assert eqx.tree_equal(config, expected)
        assert type(config.asked.total_steps) is int
        assert {type(getattr(config, name)) for name in INTS if name != "total_steps"} == {int}
    lookahead: Any = dtype(4)
    reinforce = purerl.reinforce(ENV, num_envs=4, rollout_length=8, lookahead=lookahead)
    assert type(reinforce.lookahead) is int


def test_a_numpy_int_does_not_overflow_where_a_rollout_is_derived():
    settings: Any = {"num_envs": np.int32(100_000), "total_steps": 10**9}
    made = purerl.reinforce("CartPole-v1", **settings)
    plain = purerl.reinforce("CartPole-v1", num_envs=100_000, total_steps=10**9)
    assert made.rollout_length == plain.rollout_length


def test_what_is_traced_can_be_a_tracer():
    def names(number):
        params = ENV.default_params._replace(max_steps_in_episode=number)
        made = purerl.ppo(ENV, discount=number, env_params=params, **SIZES)
        configs, _ = purerl.sweep(CONFIG, clip_eps=[0.1, 0.2])
        changed = configs.replace(discount=number, env_params=params)
        assert made.env_spec == changed.env_spec == CONFIG.env_spec
        return made.hyper.discount, changed.hyper.discount

    assert jax.jit(names)(0.5) == (0.5, 0.5)
    assert jax.vmap(names)(np.array([0.5, 0.25], np.float32))[0].shape == (2,)


@pytest.mark.parametrize("name", ["num_envs", "total_steps", "epochs", "normalize_obs"])
def test_a_tracer_for_what_is_static_is_refused_in_one_line(name, without_type_checks):
    def make(value):
        settings: Any = SIZES | {name: value}
        return purerl.ppo(ENV, **settings).hyper.discount

    with pytest.raises(ValueError, match=rf"{name} = .* must be (known before|a whole)") as error:
        jax.jit(make)(1)
    assert "\n" not in str(error.value)
