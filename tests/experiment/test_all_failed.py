"""Runs and sweeps of which agents fail: what is named, and where those end that have none left."""

import json
from typing import Any

import jax
import numpy as np
import optax
import pytest
from probes import Breaking, BreakingParams
from small import EPISODES, SEEDS, SIZES

import purerl
from purerl.experiment.diagnosis import IN_A_STEP, PARTS, replay
from purerl.experiment.store.files import read_checked_json
from purerl.experiment.store.finished_run import read_run

HOW: Any = {"updates_per_chunk": 2, "evaluation_episodes": EPISODES, "progress": False}
AGE = 20  # of what breaks: step 4 of update 2, at 8 steps an update
UPDATES = 12


def breaking(part="reward", age=AGE, share=1.0):
    params = BreakingParams(Breaking.PARTS.index(part), float(age), share)
    return purerl.vpg(Breaking(), env_params=params, **SIZES)


def run(config, directory, seeds: Any = SEEDS, **options):
    return purerl.run(config, seeds, directory, **(HOW | options))


def all_failed(call, *args, **options):
    with pytest.raises(purerl.AllAgentsFailed) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return error.value


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A run of which all agents fail in update 2 of 12."""
    chunks: list[Any] = []
    directory = tmp_path_factory.mktemp("failed")
    how: Any = {"hooks": [chunks.append], "target_return": 0.0}
    return all_failed(run, breaking(), directory, **how), chunks


def test_a_run_ends_with_the_chunk_in_which_its_last_agent_fails(failed):
    error, chunks = failed
    result = error.run
    assert isinstance(error, RuntimeError)
    assert str(error).startswith(
        f"all 4 agents failed, in update 2 of {UPDATES}; first not finite: reward at step 4; "
        f"nothing is left to train"
    )
    assert [chunk.updates for chunk in chunks] == [2, 4]
    assert result.failed_seeds == (0, 1, 2, 3)
    assert result.causes == dict.fromkeys(range(4), "reward at step 4")
    assert result.metrics.entropy.shape == (SEEDS, 4)
    assert np.isfinite(result.metrics.entropy[:, :2]).all()
    assert np.isnan(result.metrics.entropy[:, 2:]).all()
    assert result.evaluation is None
    summary = result.summary()
    assert (summary.updates, summary.env_steps) == (4, 4 * 4 * 8 * SEEDS)
    assert summary.steps_per_second > 0
    assert np.isnan(summary.episode_return.value)
    assert summary.solved == 0


def test_it_leaves_the_files_of_a_run_that_ended(failed):
    directory = failed[0].run.directory
    written = json.loads((directory / "summary.json").read_text())
    assert (written["updates"], written["episode_return"]["value"]) == (4, None)
    assert [(s["failed_at"], s["cause"]) for s in written["seeds"]] == [(2, "reward at step 4")] * 4
    assert [int(path.name) for path in (directory / "checkpoints").iterdir()] == [4]
    assert (directory / "learning_curve.png").exists()
    saved = read_run(directory)
    assert saved.failed_seeds == (0, 1, 2, 3)
    assert saved.arrays["record_updates"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("options", [{}, {"total_steps": 4 * 8 * 24}])
def test_resume_says_that_all_failed_and_trains_nothing(failed, options):
    directory = failed[0].run.directory
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    again = all_failed(purerl.resume, directory, breaking(), progress=False, **options)
    assert str(again) == str(failed[0])
    assert again.run.causes == failed[0].run.causes
    after = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert after == before


def test_resume_writes_the_result_of_a_run_that_died_as_its_last_agent_failed(failed):
    directory = failed[0].run.directory
    written = read_checked_json(directory / "summary.json")
    (directory / "summary.json").unlink()
    again = all_failed(purerl.resume, directory, breaking(), hooks=(), progress=False)
    assert str(again) == str(failed[0])
    assert read_checked_json(directory / "summary.json")["seeds"] == written["seeds"]


@pytest.mark.slow
def test_one_dead_batch_of_two_does_not_stop_the_other(trained, tmp_path):
    config = breaking("observation", share=0.2)
    at = [int(trained[0](key, config)[0].failed_at) for key in purerl.seed_keys(0, 8)]
    dead, alive = ([seed for seed in range(8) if (at[seed] < 0) is well] for well in (False, True))
    result = run(config, tmp_path, seeds=dead[:2] + alive[:2], seed_batch=2)
    assert result.failed_seeds == tuple(dead[:2])
    assert result.metrics.entropy.shape == (4, UPDATES)
    assert np.isfinite(result.metrics.entropy[2:]).all()
    assert np.isnan(result.metrics.entropy[:2, 2:]).all()
    assert result.causes == dict.fromkeys(dead[:2], "observation at step 4")


def test_the_last_chunk_may_be_that_in_which_the_last_agent_fails(tmp_path):
    error = all_failed(run, breaking(age=8 * 11), tmp_path)
    assert error.run.updates == UPDATES
    assert error.run.evaluation is None


def test_no_agent_left_counts_for_more_than_that_one_has_failed(tmp_path):
    all_failed(run, breaking(), tmp_path, stop_on_nan=True)


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        ("reward", "reward"),
        ("infinite reward", "reward"),
        ("observation", "observation"),
        ("environment state", "environment state"),
    ],
)
def test_the_step_and_the_part_of_the_environment_are_named(part, cause, trained):
    train, again = trained
    config = breaking(part)
    found = again(train(jax.random.key(0), config)[0], config)
    assert (PARTS[int(found.part)], int(found.step)) == (cause, 4)


@pytest.fixture(scope="module")
def trained():
    return jax.jit(purerl.train), jax.jit(replay)


def test_nothing_is_named_where_nothing_fails(trained):
    train, again = trained
    config = breaking(age=1000)
    found = again(train(jax.random.key(0), config)[0], config)
    assert (int(found.part), int(found.step)) == (len(PARTS), -1)


def breaking_optimizer(part):
    """Gradient descent whose step or state is NaN in its third step."""

    def make(learning_rate, max_grad_norm):
        def update(gradient, state, params=None):
            count, other = state
            bad = jax.numpy.where(count == 2, jax.numpy.nan, 0.0)
            by = bad if part == "step" else 0.0
            step = jax.tree.map(lambda x: by - learning_rate * x, gradient)
            return step, (count + 1, other + (bad if part == "state" else 0.0))

        def init(params):
            return jax.numpy.int32(0), jax.numpy.float32(0)

        return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]

    return make


def sign_descent(learning_rate, max_grad_norm):
    return optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(learning_rate))


def named(trained, factory, **settings):
    """The update in which an agent of a sound environment fails, and what is named."""
    train, again = trained
    params = BreakingParams(age=1000)
    config = factory(Breaking(), env_params=params, **(SIZES | settings))
    state, _ = train(jax.random.key(0), config)
    found = again(state, config)
    assert int(found.part) >= len(IN_A_STEP) or int(found.step) >= 0
    return int(state.failed_at), (*PARTS, None)[int(found.part)]


@pytest.mark.parametrize(("part", "cause"), [("step", "policy"), ("state", "policy optimiser")])
def test_an_optimiser_that_breaks_is_named_by_what_it_breaks(part, cause, trained):
    optimizer = breaking_optimizer(part)
    assert named(trained, purerl.reinforce, optimizer=optimizer) == (2, cause)


@pytest.mark.slow
def test_a_rate_that_is_too_large_breaks_a_network(trained):
    rates: Any = {"optimizer": sign_descent, "policy_learning_rate": 1e38}
    # Its numbers are finite after the first update, and the logits that come of them are not.
    assert named(trained, purerl.vpg, **rates) == (1, "action")
    rates = {"optimizer": sign_descent, "baseline_learning_rate": 3e38}
    assert named(trained, purerl.vpg, **rates) == (0, "baseline")


@pytest.mark.slow
def test_a_failing_sweep_ends_and_ranks_what_it_came_to(tmp_path):
    sweep = purerl.sweep(breaking(), policy_learning_rate=[1e-3, 1e-2])
    error = all_failed(purerl.run_sweep, sweep, 2, tmp_path, **HOW)
    assert str(error).startswith(
        "all 4 agents failed, in update 2 of 12; first not finite: reward at step 4; nothing"
    )
    assert error.run.updates == 4
    assert error.run.causes == {
        (setting, seed): "reward at step 4" for setting in range(2) for seed in range(2)
    }
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert written["updates"] == 4
    assert [row["causes"] for row in written["ranking"]] == [["reward at step 4"]] * 2
    again = all_failed(purerl.run_sweep, sweep, 2, tmp_path, **HOW)  # it begins anew
    assert str(again) == str(error)
