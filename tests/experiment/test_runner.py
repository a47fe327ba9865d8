import dataclasses
import json
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe, ProbeParams
from small import EPISODES, SEEDS, SIZES
from trees import assert_bitwise_equal

import purerl
from purerl.experiment.store.spec import choose_chunk_length

HOW: dict[str, Any] = {"updates_per_chunk": 4, "evaluation_episodes": EPISODES, "progress": False}


def small(**settings):
    return purerl.vpg(Probe("match", limit=True, length=0), **{**SIZES, **settings})


def run(config, seeds, directory, **options):
    return purerl.run(config, seeds, directory, **(HOW | options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of `small()`, which tests leave as it is."""
    return run(small(), SEEDS, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one seed, which tests leave as it is."""
    return run(small(), [5], tmp_path_factory.mktemp("alone"))


def test_a_run_is_shown_in_a_few_lines(trained):
    first, second, *_ = repr(trained).splitlines()
    assert first.startswith(f"Run({SEEDS} seeds, 12 of 12 updates, greedy return, IQM ")
    assert first.endswith(f"in {trained.directory}")
    assert second == "Config(vpg on Probe: 12 updates of 4 envs x 8 steps = 384 steps"
    assert len(repr(trained).splitlines()) <= 4


class StrangeParams(NamedTuple):
    """The parameters of `Strange`, by default those with which nothing happens."""

    max_steps_in_episode: float = 5  # which it ignores
    reward_scale: float = 1.0
    length: float = 1000
    oldest: float = 1
    threshold: float = 2.0


class StrangeState(NamedTuple):
    obs: jax.Array
    time: jax.Array
    nothing: jax.Array


class Strange(Probe):
    """A probe of all that may go wrong, as its parameters say: many tests, one program.

    Its state holds an array without entries. An episode ends at the age of `length`, and begins at
    any age below `oldest`. Where a draw at a reset is above `threshold`, its observation is NaN.
    """

    @property
    def default_params(self):
        return StrangeParams()

    def reset(self, key, params):
        obs, state = super().reset(key, params)
        draw = jax.random.uniform(key)
        age = jnp.floor(draw * params.oldest).astype(jnp.int32)
        obs = jnp.where(draw > params.threshold, jnp.nan, obs)
        return obs, StrangeState(obs, state.time + age, jnp.zeros((0, 3)))

    def step(self, key, state, action, params):
        params = params._replace(max_steps_in_episode=params.length)
        obs, probe, *rest = super().step(key, state, action, params)
        return obs, StrangeState(*probe, state.nothing), *rest


def strange(total_steps=SIZES["total_steps"], **params):
    settings: Any = SIZES | {"total_steps": total_steps, "env_params": StrangeParams(**params)}
    return purerl.vpg(cast(Any, Strange(limit=True, length=0)), **settings)


def test_run_trains_the_same_agents_as_train_seeds(tmp_path):
    config = small()
    result = run(config, 3, tmp_path / "a")
    states, metrics = purerl.train_seeds(purerl.seed_keys(0, 3), config)
    assert result.seed_ids == (0, 1, 2)
    np.testing.assert_array_equal(
        jax.random.key_data(result.states.key), jax.random.key_data(states.key)
    )
    for ours, theirs in zip(jax.tree.leaves(result.metrics), jax.tree.leaves(metrics), strict=True):
        assert ours.shape == (3, 12)
        np.testing.assert_allclose(ours[:, :2], theirs[:, :2], rtol=1e-4, atol=1e-6)


def test_another_chunk_length_changes_no_randomness(trained, tmp_path):
    a, b = trained, run(small(), SEEDS, tmp_path, updates_per_chunk=1)
    np.testing.assert_allclose(
        a.metrics.episode_return[:, :3], b.metrics.episode_return[:, :3], rtol=1e-5
    )
    np.testing.assert_allclose(
        a.metrics.policy_loss[:, :3], b.metrics.policy_loss[:, :3], rtol=1e-3, atol=1e-5
    )
    np.testing.assert_array_equal(a.states.step, b.states.step)


def test_evaluating_changes_nothing_of_training(trained, tmp_path):
    a, b = run(small(), SEEDS, tmp_path, evaluation_episodes=0), trained
    assert a.evaluation is None
    assert b.evaluation is not None
    assert b.evaluation.episode_return.shape == (SEEDS, EPISODES)
    for x, y in zip(jax.tree.leaves(a.metrics), jax.tree.leaves(b.metrics), strict=True):
        np.testing.assert_array_equal(x, y)


def test_seed_ids_choose_the_agents(alone, tmp_path):
    together = run(small(), [7, 2, 5], tmp_path)
    ours, theirs = together.policy(5), alone.policy(5)
    obs = jnp.ones(1)
    np.testing.assert_allclose(ours(obs).logits, theirs(obs).logits, rtol=1e-2, atol=1e-3)
    assert int(ours(obs).mode()) == 1
    with pytest.raises(ValueError, match=r"seed = 0 is not in this run; use one of \(7, 2, 5\)"):
        together.policy(0)


def test_directory_tells_the_settings_the_versions_and_the_metrics(tmp_path):
    usual: Any = {"target_return": 4.0, "progress": False}
    result = purerl.run(small(discount=0.9), 3, tmp_path / "a", **usual)
    header = json.loads((tmp_path / "a/config.json").read_text())
    assert header["config"]["hyper"]["discount"] == pytest.approx(0.9)
    assert header["config"]["env"].pop("type")["name"] == "Probe"
    assert header["config"]["env"] == {
        "reward": "match",
        "length": 0,
        "limit": True,
        "clock": False,
    }
    assert header["seeds"] == [0, 1, 2]
    assert header["updates_per_chunk"] == 1
    assert header["evaluation_episodes"] == 32
    assert header["versions"]["jax"] == jax.__version__
    assert "0x" not in json.dumps(header)  # no object's address: it would differ each time
    with np.load(tmp_path / "a/metrics.npz") as saved:
        np.testing.assert_array_equal(saved["episode_return"], result.metrics.episode_return)
        np.testing.assert_array_equal(saved["seed_ids"], [0, 1, 2])
        assert {f.name for f in dataclasses.fields(purerl.Metrics)} < set(saved)
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    assert summary["solved"] == result.summary().solved
    assert (tmp_path / "a/learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "a").glob("*.part"))


def test_directory_of_another_config_is_refused_and_left_as_it_was(trained):
    directory = trained.directory
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    others = {
        r"config.hyper.discount: 0.99\d*, now 0.5;": (small(discount=0.5), SEEDS),
        r"seeds: \[0, 1, 2, 3\], now \[0, 1, 2\];": (small(), 3),
    }
    for told, other in others.items():
        with pytest.raises(ValueError, match=f"holds another run, which differs: {told}") as error:
            run(*other, directory)
        assert "\n" not in str(error.value)
    assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_finished_run_is_not_trained_anew_unasked(trained):
    directory = trained.directory
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError, match=r"is finished; purerl resume .* loads it; remove"
    ) as error:
        run(small(), SEEDS, directory)
    assert "\n" not in str(error.value)
    assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_default_directories_of_two_configs_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run(small(), 1, None)
    second = run(small(discount=0.5), 1, None)
    third = run(small(), 1, None)
    names = [str(each.directory) for each in (first, second, third)]
    runs = tmp_path / "runs"
    assert names == [f"{runs}/Probe-vpg", f"{runs}/Probe-vpg-2", f"{runs}/Probe-vpg-3"]


def test_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        run(small(), 1, tmp_path / "file/run")


def test_hooks_see_every_record_once(tmp_path):
    chunks = []
    result = run(small(), 3, tmp_path, hooks=[chunks.append])
    assert [chunk.updates for chunk in chunks] == [4, 8, 12]
    assert [chunk.env_steps for chunk in chunks] == [128, 256, 384]
    seen = np.concatenate([chunk.metrics.entropy for chunk in chunks], axis=1)
    np.testing.assert_array_equal(seen, result.metrics.entropy)


def test_the_time_of_a_run_is_that_of_training_alone(tmp_path):
    config = small(total_steps=4 * 8 * 4)
    result = run(config, SEEDS, tmp_path, evaluation_episodes=200_000)
    assert 0 < result.times.run < result.times.evaluate
    steps = SEEDS * config.env_steps
    assert result.summary().steps_per_second == pytest.approx(steps / result.times.run)


def test_numbers_of_numpy_are_as_good_as_pythons(tmp_path, without_type_checks):
    how: Any = {"root": np.int64(3), "target_return": np.float32(4.5)}
    how |= {"seed_batch": np.int32(SEEDS), "updates_per_chunk": np.int64(4)}
    result = run(small(), 2 * SEEDS, tmp_path, **how)
    assert purerl.resume(tmp_path, small(), progress=False).summary() == result.summary()
    with pytest.raises(ValueError, match=r"root = 0.5 must be an int"):
        run(small(), 2, tmp_path / "x", root=cast(Any, 0.5))


def test_an_environment_with_an_empty_array_in_its_state_is_saved(tmp_path):
    config = strange()
    result = run(config, SEEDS, tmp_path)
    assert 0 in [leaf.size for leaf in jax.tree.leaves(result.states.envs.state)]
    again = purerl.resume(tmp_path, config, progress=False)
    assert_bitwise_equal(again.states, result.states)


def test_intervals_change_nothing_of_the_chunks_and_are_whole_records(tmp_path):
    """Episodes every 10 updates and checkpoints every 14, in chunks of 4."""
    config = small(total_steps=4 * 8 * 120, log_every=2)
    for name in ("evaluate_every", "checkpoint_every"):
        line = rf"{name} = 7 is not a multiple of log_every = 2: .* use 8\."
        with pytest.raises(ValueError, match=line):
            run(config, SEEDS, tmp_path, **{name: 7})
    assert not list(tmp_path.iterdir())
    options = {"updates_per_chunk": None, "keep_checkpoints": 100}
    intervals = {"evaluate_every": 10, "checkpoint_every": 14}
    result = run(config, SEEDS, tmp_path / "a", **intervals, **options)
    assert json.loads((tmp_path / "a/config.json").read_text())["updates_per_chunk"] == 4
    assert result.evaluations is not None
    assert result.evaluations.updates.tolist() == list(range(10, 121, 10))
    saved = sorted(int(path.name) for path in (tmp_path / "a/checkpoints").iterdir())
    assert saved == [*range(14, 120, 14), 120]
    plain = run(config, SEEDS, tmp_path / "b", **options)
    assert_bitwise_equal(result.states, plain.states)
    assert_bitwise_equal(result.metrics, plain.metrics)


@pytest.mark.parametrize(
    ("num_updates", "log_every", "chunk"),
    [
        (120, 1, 4),
        (977, 1, 33),
        (3907, 1, 131),
        (147, 10, 10),
        (961, 1, 33),
        (31, 1, 2),
        (7, 1, 1),
        (2_000, 1000, 1000),
    ],
)
def test_a_chunk_is_a_thirtieth_of_any_number_of_updates(num_updates, log_every, chunk):
    config = small(total_steps=num_updates * 4 * 8, log_every=log_every)
    assert choose_chunk_length(config, None) == chunk


def test_a_budget_of_no_whole_chunks_is_exact_and_goes_on(tmp_path):
    """Of 11 updates, and then of 16, in chunks of 4 and records of 2."""
    config = small(log_every=2, total_steps=4 * 8 * 11)
    result = run(config, SEEDS, tmp_path / "a")
    assert result.record_updates.tolist() == [2, 4, 6, 8, 10, 11]
    assert (result.updates, np.asarray(result.states.step).tolist()) == (11, [11] * SEEDS)
    assert result.evaluations is not None
    assert result.evaluations is not None
    assert result.evaluations.updates.tolist() == [11]
    _, metrics = purerl.train_seeds(purerl.seed_keys(0, SEEDS), config)
    np.testing.assert_array_equal(result.metrics.num_episodes, metrics.num_episodes)
    np.testing.assert_allclose(result.metrics.entropy, metrics.entropy, rtol=1e-4)
    more = small(log_every=2, total_steps=4 * 8 * 16)
    longer = purerl.resume(tmp_path / "a", env=more.env, total_steps=4 * 8 * 16, progress=False)
    assert longer.record_updates.tolist() == [2, 4, 6, 8, 10, 11, 12, 14, 16]
    straight = run(more, SEEDS, tmp_path / "b")
    assert_bitwise_equal(longer.states, straight.states)
    at = np.isin(longer.record_updates, [2, 4, 6, 8, 10, 14, 16])
    by = np.isin(straight.record_updates, [2, 4, 6, 8, 10, 14, 16])
    np.testing.assert_array_equal(longer.metrics.entropy[:, at], straight.metrics.entropy[:, by])
    both = longer.metrics.num_episodes[:, ~at].sum(axis=1)
    np.testing.assert_array_equal(both, straight.metrics.num_episodes[:, ~by].sum(axis=1))
    env_steps = result.plot().axes[0].lines[0].get_xdata()
    assert np.max(np.asarray(env_steps)) == 11 * 4 * 8


def test_without_an_interval_a_checkpoint_is_written_with_the_chunk_that_is_late(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("purerl.experiment.loop.SAVE_AFTER", 0.0)
    run(small(), SEEDS, tmp_path / "often")
    monkeypatch.setattr("purerl.experiment.loop.SAVE_AFTER", 1000.0)
    run(small(), SEEDS, tmp_path / "seldom")
    found = {name: (tmp_path / name / "records").iterdir() for name in ("often", "seldom")}
    names = {name: sorted(path.name[:9] for path in each) for name, each in found.items()}
    # The last is the evaluation after training.
    assert names["often"] == ["000000000", "000000004", "000000008", "000000012"]
    assert names["seldom"] == ["000000000", "000000012"]


def test_seeds_in_which_no_episode_ended_are_named(tmp_path):
    # The first episodes of each seed begin at random ages; in some seeds none ends in 32 steps.
    config = strange(4 * 8 * 4, length=200, oldest=200)
    result = run(config, 12, tmp_path, seed_batch=SEEDS, evaluation_episodes=0)
    silent = result.summary().seeds_without_episode
    ended = np.asarray(result.metrics.num_episodes).sum(axis=1)
    assert silent == tuple(np.flatnonzero(ended == 0).tolist())
    assert 0 < len(silent) < 12
    assert result.failed_seeds == ()


def test_failed_seed_is_named_and_enters_no_statistic(tmp_path):
    how: Any = {"seed_batch": SEEDS, "target_return": 0.0}
    result = run(strange(length=4, threshold=0.995), 8, tmp_path, **how)
    failed = result.failed_seeds
    assert 0 < len(failed) < 8
    returns = result.final_returns()
    assert [s for s, value in zip(result.seed_ids, returns, strict=True) if np.isnan(value)] == [
        *failed
    ]
    summary = result.summary()
    assert np.isfinite(summary.episode_return.value)
    assert summary.failed_seeds == failed
    assert summary.solved == (8 - len(failed)) / 8
    written = json.loads((tmp_path / "summary.json").read_text())
    assert [s["seed"] for s in written["seeds"] if s["failed_at"] >= 0] == [*failed]


def test_the_evaluation_takes_the_time_limit_that_is_configured(tmp_path):
    params = ProbeParams(max_steps_in_episode=9)
    config = small(env_params=params)
    result = run(config, SEEDS, tmp_path / "a")
    assert result.evaluation is not None
    lengths = result.evaluation.episode_length
    np.testing.assert_array_equal(lengths, np.full((SEEDS, EPISODES), 9))
    assert result.summary().num_unfinished == 0

    endless = strange()  # its parameters name a limit that it ignores
    result = run(endless, SEEDS, tmp_path / "b")
    unfinished = SEEDS * EPISODES
    assert result.summary().num_unfinished == unfinished
    assert json.loads((tmp_path / "b/summary.json").read_text())["num_unfinished"] == unfinished


def test_a_second_run_of_the_same_config_traces_nothing_anew(tmp_path):
    import jax._src.test_util as jtu

    run(small(), SEEDS, tmp_path / "a")
    with jtu.count_jit_and_pmap_lowerings() as lowerings:
        run(small(), SEEDS, tmp_path / "b")
    assert lowerings() == 0


def test_plot_of_one_seed_and_of_seeds_without_an_episode(alone, tmp_path):
    alone.plot(tmp_path / "alone.png")
    never = run(strange(), SEEDS, tmp_path / "never")
    assert np.isnan(never.metrics.episode_return).all()
    assert np.isfinite(never.metrics.policy_loss).all()
    never.plot(tmp_path / "never.png")


@pytest.mark.parametrize("target", [float("nan"), float("inf"), "475", True])
def test_a_target_that_is_no_number_is_refused(target, tmp_path, without_type_checks):
    with pytest.raises(ValueError, match=r"target_return = .* must be a finite number"):
        run(small(), 1, tmp_path / "run", target_return=target)
    assert not (tmp_path / "run").exists()


def test_bad_chunk_is_refused_before_compiling(tmp_path):
    with pytest.raises(ValueError, match="updates_per_chunk = 3 is not divisible by log_every"):
        run(small(log_every=2), 1, tmp_path, updates_per_chunk=3)
    assert not list(tmp_path.iterdir())


def test_what_jax_is_set_to_in_a_with_reaches_the_run(tmp_path):
    with jax.default_prng_impl("rbg"):
        result = run(small(total_steps=4 * 8), 1, tmp_path, updates_per_chunk=1)
    assert jax.random.key_impl(result.states.key) == "rbg"
    flags = json.loads((tmp_path / "config.json").read_text())["flags"]
    assert flags["jax_default_prng_impl"] == "rbg"
