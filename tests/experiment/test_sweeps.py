"""Sweeps: which settings there are, that each trains as it does alone, and how they are ranked."""

import dataclasses
import json
from typing import Any, NamedTuple

import jax
import jax._src.test_util as jtu
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe
from small import EPISODES, SIZES
from trees import assert_bitwise_equal

import purerl
from purerl.config.sweeps import setting_at, swept_values
from purerl.experiment import sweep_runner
from purerl.experiment.programs import compile_programs
from purerl.experiment.report.run_result import Times
from purerl.experiment.report.sweep_ranking import Sweep
from purerl.experiment.store.records import Records
from purerl.types import Metrics

SMALL = SIZES | {"total_steps": 4 * 8 * 6}
RATES = [1e-5, 3e-2]
HOW: Any = {"updates_per_chunk": 2, "evaluation_episodes": EPISODES, "progress": False}


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
    assert_bitwise_equal(setting_at(configs, axes, 1), small(discount=0.9))


# What they train


def test_settings_of_one_seed_are_spread_over_the_devices():
    configs, axes = purerl.sweep(small(), policy_learning_rate=[*RATES, *RATES])
    keys = purerl.seed_keys(0, 1)
    found = compile_programs(keys, configs, axes, chunk_updates=2, episodes=0)
    assert (found.num_agents, found.mesh.size) == (4, len(jax.devices()))


def test_a_sweep_over_seeds_and_settings_is_one_compile():
    keys = purerl.seed_keys(0, 3)
    configs, axes = purerl.sweep(small(), policy_learning_rate=RATES, entropy_coef=[0.0, 0.1])
    over_seeds = jax.vmap(purerl.train, (0, None))
    with jtu.count_jit_and_pmap_lowerings() as lowerings:
        states, _ = jax.jit(jax.vmap(over_seeds, (None, axes)))(keys, configs)
    assert lowerings() == 1
    assert states.step.shape == (4, 3)


class Trained(NamedTuple):
    """A sweep of 2 × 2 settings with 3 seeds, trained from two roots."""

    configs: purerl.Config
    axes: purerl.Config
    states: list[Any]
    metrics: list[Any]
    num_traces: int


@pytest.fixture(scope="module")
def trained():
    traces, train = [], purerl.train

    def counted(*args, **how):
        traces.append(args)
        return train(*args, **how)

    configs, axes = purerl.sweep(small(), entropy_coef=[0.0, 0.1], policy_learning_rate=RATES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purerl.agents.train", counted)
        keys = [purerl.seed_keys(root, 3) for root in range(2)]
        found = [purerl.train_sweep(each, configs, axes) for each in keys]
    states, metrics = map(list, zip(*found, strict=True))
    return Trained(configs, axes, states, metrics, len(traces))


def test_train_sweep_traces_training_once(trained):
    assert trained.num_traces == 1
    for states in trained.states:
        assert states.step.shape == (4, 3)
    first, second = (jax.random.key_data(states.key) for states in trained.states)
    assert np.any(np.asarray(first) != np.asarray(second))


@pytest.mark.parametrize("setting", [0, 1])
def test_a_setting_of_a_sweep_trains_as_it_does_alone(setting, trained):
    config = setting_at(trained.configs, trained.axes, setting)
    assert config.hyper.policy_learning_rate == np.float32(RATES[setting])
    alone_states, alone = purerl.train_seeds(purerl.seed_keys(0, 3), config)
    assert_bitwise_equal(trained.states[0].key[setting], alone_states.key)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[setting], b, rtol=1e-3, atol=1e-4),
        trained.metrics[0],
        alone,
    )


def test_the_settings_of_a_sweep_differ_in_what_they_learn(trained):
    slow, fast = trained.metrics[0].entropy[:2, :, -1].mean(axis=1)
    assert fast < slow - 0.02


# With the host loop


def test_run_sweep_ranks_the_settings_and_leaves_files(tmp_path):
    sweep = purerl.sweep(small(total_steps=4 * 8 * 24), policy_learning_rate=RATES)
    options = HOW | {"evaluation_episodes": 0, "seed_batch": 4}
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
        np.testing.assert_array_equal(saved["final_return"], result.returns)
        assert not saved["failed"].any()
    assert (tmp_path / "a/sweep.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="holds another sweep"):
        purerl.run_sweep(sweep, 5, tmp_path / "a", **options)


def test_a_sweep_that_is_finished_is_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = purerl.sweep(small(log_every=2), policy_learning_rate=RATES)
    how, kept = HOW | {"evaluation_episodes": 0}, []
    monkeypatch.setattr(sweep_runner, "Records", lambda: kept.append(Records()) or kept[-1])
    result = purerl.run_sweep(sweep, 2, **HOW)
    np.testing.assert_array_equal(kept[0].updates(), [2, 4, 6])
    before = {path: path.read_bytes() for path in result.directory.iterdir()}
    with pytest.raises(ValueError, match=r"the sweep in .* is finished; name another directory"):
        purerl.run_sweep(sweep, 2, result.directory, **how)
    assert {path: path.read_bytes() for path in result.directory.iterdir()} == before
    again = purerl.run_sweep(sweep, 2, **how)
    assert again.directory.name == f"{result.directory.name}-2"


def test_run_sweep_trains_the_agents_of_run(tmp_path):
    configs, axes = purerl.sweep(small(), policy_learning_rate=RATES)
    together = purerl.run_sweep((configs, axes), [4, 7], tmp_path / "a", root=3, **HOW)
    alone = purerl.run(setting_at(configs, axes, 1), [4, 7], tmp_path / "b", root=3, **HOW)
    np.testing.assert_allclose(
        together.metrics.entropy[1], alone.metrics.entropy, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(together.returns[1], alone.final_returns(), rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Scaled(Probe):
    """A probe that pays its scale, and after a step observes NaN where the scale is above 5."""

    def step(self, key, state, action, params):
        obs, state, *rest = super().step(key, state, action, params)
        return jnp.where(params.reward_scale > 5, jnp.nan, obs), state, *rest


@pytest.mark.slow
def test_a_setting_whose_seeds_fail_is_ranked_last_and_says_so(tmp_path):
    env: Any = Scaled(length=4)
    config = purerl.vpg(env, **SMALL)
    sweep = purerl.sweep(config, **{"env_params.reward_scale": [9.0, 1.0, 3.0]})  # pyright: ignore[reportArgumentType]
    result = purerl.run_sweep(sweep, 2, tmp_path, **HOW)
    ranking = result.ranking()
    assert [each.setting for each in ranking] == [2, 1, 0]
    assert [each.num_failed for each in ranking] == [0, 0, 2]
    assert [each.causes for each in ranking] == [(), (), ("observation at step 0",)]
    assert np.isnan(ranking[-1].episode_return.value)
    assert [float(each.episode_return.value) for each in ranking[:2]] == [12, 4]


def test_the_curves_of_a_sweep_leave_out_the_seeds_that_failed(tmp_path):
    returns = np.array(
        [
            [[1.0, 2.0, 3.0], [3.0, 4.0, 5.0], [np.nan, np.nan, np.nan]],
            [[5.0, 6.0, 7.0], [9.0, np.nan, np.nan], [5.0, 6.0, 7.0]],
            [[9.0, np.nan, np.nan]] * 3,
        ],
        np.float32,
    )
    failed = np.isnan(returns[:, :, -1])
    counts = np.where(np.isnan(returns), 0, 1)
    names = [field.name for field in dataclasses.fields(Metrics)]
    configs, axes = purerl.sweep(small(), discount=[0.5, 0.7, 0.9])
    result = Sweep(
        configs=configs,
        values=swept_values(configs, axes),
        metrics=Metrics(**dict.fromkeys(names, returns) | {"num_episodes": counts}),
        record_updates=np.arange(1, returns.shape[-1] + 1),
        returns=returns[:, :, -1],
        noise=None,
        failed=failed,
        seed_ids=(0, 1, 2),
        root=0,
        directory=tmp_path,
        target_return=None,
        times=Times(0.0, 0.0, 0.0),
        updates=3,
    )
    drawn = {line.get_label(): line.get_ydata() for line in result.plot().axes[0].get_lines()}
    assert {name: list(y) for name, y in drawn.items()} == {  # pyright: ignore[reportArgumentType]
        "discount 0.5 (1 failed and left out)": [2, 3, 4],
        "discount 0.7 (1 failed and left out)": [5, 6, 7],
    }
