"""Sweeps: which settings there are, that each trains as it does alone, and how they are ranked."""

import dataclasses
import json
from typing import Any

import chex
import jax
import jax._src.test_util as jtu
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe
from trees import assert_bitwise_equal

import purerl
from purerl.experiment import files, sweeps
from purerl.experiment.errors import RunError, Stopped
from purerl.sweep import one_setting, swept_values

SMALL = {"num_envs": 4, "rollout_length": 8, "total_steps": 4 * 8 * 6, "hidden": (8,)}
RATES = [1e-5, 3e-2]


def small(**settings):
    return purerl.ppo(Probe("match", length=4), **(SMALL | settings))


def columns(*args, **values):
    return swept_values(*purerl.sweep(small(), *args, **values))


# Which settings there are


def test_zip_takes_the_values_side_by_side():
    found = columns(zip=True, policy_learning_rate=[0.1, 0.2, 0.3], discount=[0.9, 0.8, 0.7])
    np.testing.assert_allclose(found["policy_learning_rate"], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(found["discount"], [0.9, 0.8, 0.7])


def test_draws_lie_in_their_ranges_and_are_spread_as_they_say():
    found = columns(
        draws=4000,
        policy_learning_rate=purerl.LogUniform(1e-4, 1e-2),
        entropy_coef=purerl.Uniform(0.0, 0.1),
        discount=[0.9, 0.99],
    )
    rate, entropy = found["policy_learning_rate"], found["entropy_coef"]
    assert 1e-4 <= rate.min() < 1.1e-4
    assert 0.9e-2 < rate.max() <= 1e-2
    assert abs(np.mean(rate < 1e-3) - 0.5) < 0.05
    assert abs(np.mean(entropy < 0.05) - 0.5) < 0.05
    assert set(found["discount"]) == {np.float32(0.9), np.float32(0.99)}


def test_draws_are_those_of_their_root():
    rates = {"policy_learning_rate": purerl.LogUniform(1e-4, 1e-2)}
    first, again, other = (columns(draws=8, root=root, **rates) for root in (3, 3, 4))
    np.testing.assert_array_equal(*(x["policy_learning_rate"] for x in (first, again)))  # pyright: ignore[reportArgumentType]
    assert not np.array_equal(*(x["policy_learning_rate"] for x in (first, other)))  # pyright: ignore[reportArgumentType]


def test_one_setting_is_the_config_with_its_values():
    configs, axes = purerl.sweep(small(), discount=[0.5, 0.9])
    assert_bitwise_equal(one_setting(configs, axes, 1), small(discount=0.9))


# What they train


def test_a_sweep_over_seeds_and_settings_is_one_compile():
    keys = purerl.seed_keys(0, 3)
    configs, axes = purerl.sweep(small(), policy_learning_rate=RATES, entropy_coef=[0.0, 0.1])
    over_seeds = jax.vmap(purerl.train, (0, None))
    with jtu.count_jit_and_pmap_lowerings() as lowerings:
        states, _ = jax.jit(jax.vmap(over_seeds, (None, axes)))(keys, configs)
    assert lowerings() == 1
    assert states.step.shape == (4, 3)


def test_train_sweep_traces_training_once(monkeypatch):
    chex.clear_trace_counter()
    monkeypatch.setattr("purerl.seeds.train", chex.assert_max_traces(purerl.train, n=1))
    configs, axes = purerl.sweep(small(), policy_learning_rate=RATES, entropy_coef=[0.0, 0.1])
    for root in range(2):
        states, _ = purerl.train_sweep(purerl.seed_keys(root, 3), configs, axes)
        assert states.step.shape == (4, 3)


@pytest.mark.parametrize("setting", [0, 1])
def test_a_setting_of_a_sweep_trains_as_it_does_alone(setting):
    keys = purerl.seed_keys(0, 3)
    configs, axes = purerl.sweep(small(), policy_learning_rate=RATES)
    states, metrics = purerl.train_sweep(keys, configs, axes)
    alone_states, alone = purerl.train_seeds(keys, one_setting(configs, axes, setting))
    assert_bitwise_equal(states.key[setting], alone_states.key)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[setting], b, rtol=1e-3, atol=1e-4), metrics, alone
    )


def test_the_settings_of_a_sweep_differ_in_what_they_learn():
    configs, axes = purerl.sweep(small(), policy_learning_rate=RATES)
    _, metrics = purerl.train_sweep(purerl.seed_keys(0, 4), configs, axes)
    slow, fast = metrics.entropy[:, :, -1].mean(axis=1)
    assert fast < slow - 0.02


# With the host loop


def test_run_sweep_ranks_the_settings_and_leaves_files(tmp_path):
    sweep = purerl.sweep(small(total_steps=4 * 8 * 24), policy_learning_rate=RATES)
    options: dict[str, Any] = {"evaluation_episodes": 0, "progress": False}
    result = purerl.run_sweep(sweep, 4, tmp_path / "a", target_return=3.9, **options)
    ranking = result.ranking()
    assert [each.setting for each in ranking] == [1, 0]
    assert ranking[0].values == {"policy_learning_rate": pytest.approx(3e-2)}
    assert ranking[0].episode_return.value > ranking[1].episode_return.value
    assert ranking[0].solved == np.mean(result.returns[1] >= 3.9)
    assert result.metrics.episode_return.shape == (2, 4, 24)
    written = json.loads((tmp_path / "a/sweep.json").read_text())
    assert [each["setting"] for each in written["ranking"]] == [1, 0]
    with np.load(tmp_path / "a/metrics.npz") as saved:
        np.testing.assert_array_equal(saved["policy_learning_rate"], np.float32(RATES))  # pyright: ignore[reportArgumentType]
        assert saved["entropy"].shape == (2, 4, 24)
    assert (tmp_path / "a/sweep.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="holds another run"):
        purerl.run_sweep(sweep, 5, tmp_path / "a", **options)


def test_run_sweep_trains_the_agents_of_run(tmp_path):
    configs, axes = purerl.sweep(small(), policy_learning_rate=RATES)
    together = purerl.run_sweep((configs, axes), [4, 7], tmp_path / "a", progress=False)
    alone = purerl.run(one_setting(configs, axes, 1), [4, 7], tmp_path / "b", progress=False)
    np.testing.assert_allclose(
        together.metrics.entropy[1], alone.metrics.entropy, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(together.returns[1], alone.final_returns(), rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Scaled(Probe):
    """A probe that pays its scale, and NaN as observation where the scale is above 5."""

    def reset(self, key, params):
        obs, state = super().reset(key, params)
        return jnp.where(params.reward_scale > 5, jnp.nan, obs), state


def test_a_setting_whose_seeds_fail_is_ranked_last_and_says_so(tmp_path):
    config = purerl.vpg(Scaled(length=4), **SMALL)
    sweep = purerl.sweep(config, **{"env_params.reward_scale": [9.0, 1.0, 3.0]})  # pyright: ignore[reportArgumentType]
    result = purerl.run_sweep(sweep, 2, tmp_path, progress=False)
    ranking = result.ranking()
    assert [each.setting for each in ranking] == [2, 1, 0]
    assert [each.num_failed for each in ranking] == [0, 0, 2]
    assert np.isnan(ranking[-1].episode_return.value)
    assert [float(each.episode_return.value) for each in ranking[:2]] == [12, 4]


# What ends a sweep early


class Told(sweeps.Signals):
    """A stand-in for `Signals`: one that comes after `received` was read so many times."""

    def __init__(self, number, reads):
        self.number, self.reads = number, reads

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def received(self):
        self.reads -= 1
        return self.number if self.reads < 0 else None


def test_a_sweep_that_a_signal_stops_leaves_what_it_has_come_to(tmp_path, monkeypatch):
    sweep = purerl.sweep(small(total_steps=4 * 8 * 6), policy_learning_rate=RATES)
    monkeypatch.setattr(sweeps, "Signals", lambda: Told(15, reads=4))  # once while it compiles
    with pytest.raises(Stopped, match=r"stopped at update 4 of 6; .*sweep\.json.*anew") as stopped:
        purerl.run_sweep(sweep, 2, tmp_path, updates_per_chunk=1, progress=False)
    assert stopped.value.signal_number == 15
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert written["updates"] == 4
    assert written["env_steps"] == 4 * 8 * 4
    assert len(written["ranking"]) == 2
    with np.load(tmp_path / "metrics.npz") as saved:
        assert saved["entropy"].shape == (2, 2, 4)
        assert np.all(np.isfinite(saved["entropy"]))
    assert (tmp_path / "sweep.png").exists()
    monkeypatch.undo()
    again = purerl.run_sweep(sweep, 2, tmp_path, updates_per_chunk=1, progress=False)
    assert again.updates == 6


def test_a_sweep_that_is_stopped_while_it_compiles_leaves_nothing(tmp_path, monkeypatch):
    sweep = purerl.sweep(small(), policy_learning_rate=RATES)
    monkeypatch.setattr(sweeps, "Signals", lambda: Told(2, reads=0))
    with pytest.raises(Stopped, match="stopped before training") as stopped:
        purerl.run_sweep(sweep, 2, tmp_path, progress=False)
    assert stopped.value.signal_number == 2
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_full_disk_ends_a_sweep_with_a_line(tmp_path, monkeypatch):
    def full(path, arrays):
        raise OSError(28, "No space left on device", str(path))

    sweep = purerl.sweep(small(), policy_learning_rate=RATES)
    monkeypatch.setattr(files, "write_arrays", full)
    with pytest.raises(RunError, match=r"could not be written: the disk is full") as error:
        purerl.run_sweep(sweep, 2, tmp_path, progress=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"seed_batch": 0}, "seed_batch = 0 must be a whole number of at least 1"),
        ({"memory_limit": -1}, "memory_limit = -1 must be"),
        ({"root": -1}, "root = -1 must be an int from 0"),
        ({"evaluation_episodes": -1}, "evaluation_episodes = -1 must be"),
    ],
)
def test_bad_counts_of_a_sweep_are_refused_in_one_line(how, line, tmp_path):
    sweep = purerl.sweep(small(), policy_learning_rate=RATES)
    with pytest.raises(ValueError, match=line):
        purerl.run_sweep(sweep, 2, tmp_path / "sweep", progress=False, **how)
    assert not (tmp_path / "sweep").exists()
