"""Presets: that each is a config, and that the command line's environments have targets."""

import pytest

import purerl
from purerl.config.presets import FACTORIES, PRESETS, TARGETS
from purerl.experiment.store.spec import choose_chunk_length


@pytest.mark.parametrize(("env", "algo"), list(PRESETS))
def test_every_preset_is_a_config_of_its_environment_and_algorithm(env, algo):
    config = purerl.preset(env, algo)
    assert config.algorithm.name == algo
    assert config.env is purerl.make_env(env)[0]
    given = dict(PRESETS[env, algo])
    for name in ("num_envs", "rollout_length"):
        if given.get(name) is not None:
            assert getattr(config, name) == given[name]
    if "schedule" in given:
        assert dict(config.schedule) == given["schedule"]
    assert float(config.hyper.policy_learning_rate) == pytest.approx(given["policy_learning_rate"])


@pytest.mark.parametrize(("env", "algo"), list(PRESETS))
def test_every_preset_is_trained_in_at_least_ten_chunks(env, algo):
    config = purerl.preset(env, algo)
    assert config.num_updates / choose_chunk_length(config, None) >= 10


def test_what_is_asked_for_is_there():
    wanted = {("CartPole-v1", algo) for algo in ("reinforce", "vpg", "a2c", "ppo")}
    envs = (
        "Acrobot-v1",
        "MountainCar-v0",
        "Pendulum-v1",
        "MountainCarContinuous-v0",
        "Catch-bsuite",
        "FourRooms-misc",
        "PointRobot-misc",
        "Reacher-misc",
        "Breakout-MinAtar",
    )
    assert wanted | {(env, "ppo") for env in envs} == set(PRESETS)
    assert set(TARGETS) <= {env for env, _ in PRESETS}


def test_a_preset_takes_settings_and_an_environment_without_one_has_the_defaults():
    assert purerl.preset("CartPole-v1", "vpg", num_envs=8).num_envs == 8
    plain = purerl.preset("MemoryChain-bsuite", "ppo")
    assert plain.num_envs == purerl.ppo("MemoryChain-bsuite").num_envs


def test_an_algorithm_that_there_is_not_is_refused_in_one_line():
    with pytest.raises(ValueError, match="algo = 'dqn' is not known; use reinforce or vpg or"):
        purerl.preset("CartPole-v1", "dqn")
    assert set(FACTORIES) == {"reinforce", "vpg", "a2c", "ppo"}
