"""Policies of a run at play, and the states that are read while a run goes on."""

import json
import shutil
import warnings

import jax
import numpy as np
import pytest
from finished import train
from probes import Probe
from rich.console import Console

import purerl
from purerl.experiment import policies
from purerl.experiment.lock import Lock
from purerl.experiment.play import block_sizes, evaluate_run
from purerl.experiment.policies import load_states
from purerl.experiment.tables import evaluation_table


def test_evaluation_of_a_saved_run(finished):
    played = evaluate_run(finished, episodes=300, seeds=[2, 0])
    returns = np.asarray(played.evaluation.episode_return)
    assert returns.shape == (2, 300)
    assert played.updates == 6
    policy = purerl.load_policy(finished, 2)
    number = jax.random.fold_in(purerl.seed_keys(0, [2])[0], 7)
    greedy_key, _ = jax.random.split(number)
    alone = purerl.evaluate(greedy_key, policy, played.plan.config, num_episodes=150)
    np.testing.assert_array_equal(returns[0, :150], alone.episode_return)
    assert np.any(returns[:, :150] != returns[:, 150:])
    with pytest.raises(ValueError, match=r"seed = 9 is not in this run; use one of \(0, 1, 2, 3"):
        evaluate_run(finished, seeds=[9])


@pytest.mark.parametrize("episodes", [1, 255, 256, 257, 1000, 5003])
def test_blocks_are_as_many_episodes_as_asked_in_two_programs_at_most(episodes):
    sizes = block_sizes(episodes)
    assert sum(sizes) == episodes
    assert max(sizes) <= 256
    assert len(set(sizes)) <= 2


def test_max_steps_cuts_episodes_off(finished):
    played = evaluate_run(finished, episodes=10, sampled=True, max_steps=3)
    assert np.all(np.asarray(played.evaluation.episode_length) == 3)
    assert np.all(np.asarray(played.evaluation.num_unfinished) == 10)
    with pytest.raises(ValueError, match="max_steps = 0 must be a whole number of at least 1"):
        evaluate_run(finished, max_steps=0)


@pytest.mark.slow
def test_without_a_time_limit_max_steps_is_required(tmp_path):
    endless = Probe("match", length=0)
    train(tmp_path, env=endless, seeds=1, target_return=None, evaluation_episodes=0)
    with pytest.raises(ValueError, match="max_steps is required"):
        evaluate_run(tmp_path, env=endless)
    played = evaluate_run(tmp_path, env=endless, episodes=2, max_steps=4)
    assert np.all(np.asarray(played.evaluation.episode_length) == 4)


def test_failed_seeds_are_named_in_the_file_and_the_table(finished, tmp_path):
    played = evaluate_run(finished, episodes=2)
    played = played._replace(failed=np.array([False, True, False, True]))
    played.write(tmp_path / "evaluation.json")
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["failed_seeds"] == [1, 3]
    assert [seed for seed, mean in written["seeds"].items() if mean is None] == ["1", "3"]
    assert written["mean"]["value"] == pytest.approx(np.mean(played.returns[[0, 2]]))
    console = Console(width=100)
    with console.capture() as shown:
        console.print(evaluation_table(played))
    (line,) = [line for line in shown.get().splitlines() if "stopped being finite" in line]
    assert "1, 3" in line
    with pytest.raises(ValueError, match="every seed has failed"):
        played._replace(failed=np.ones(4, bool)).figures()


def test_a_checkpoint_that_is_removed_while_it_is_read_gives_way_to_the_next(
    finished, tmp_path, monkeypatch
):
    copy = shutil.copytree(finished, tmp_path / "copy")
    newest = copy / "checkpoints/6"
    older = copy / "checkpoints/4"
    restore, taken = policies.restore, []

    def removed_once(directory, updates, like):
        taken.append(updates)
        if len(taken) == 1:  # training has written another, and removed this one
            newest.rename(copy / "checkpoints/next")
            shutil.copytree(finished / "checkpoints/6", older)
        if updates == 4:
            return restore(finished, 6, like)
        return restore(directory, updates, like)

    monkeypatch.setattr(policies, "restore", removed_once)
    _, _, updates = load_states(copy)
    assert taken == [6, 4]
    assert updates == 4


def test_a_checkpoint_that_is_being_written_is_not_warned_of(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "checkpoints/7").mkdir()
    with Lock(copy), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_states(copy)[2] == 6
    with pytest.warns(UserWarning, match="update 7 in .* is passed over"):
        assert load_states(copy)[2] == 6
