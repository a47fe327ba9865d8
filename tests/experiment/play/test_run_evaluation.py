"""Policies of a run at play, and the states that are read while a run goes on."""

import dataclasses
import functools
import json
import shutil
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from finished import train
from probes import Probe, ProbeParams
from rich.console import Console
from small import EPISODES, SEEDS, SIZES

import purerl
from purerl import agents
from purerl.cli.tables import evaluation_table
from purerl.experiment.play import policies, run_evaluation
from purerl.experiment.play.policies import LoadedRun
from purerl.experiment.play.rendering import render_run
from purerl.experiment.play.run_evaluation import block_sizes, evaluate_run
from purerl.experiment.store import files
from purerl.experiment.store.directory import Lock
from purerl.experiment.store.files import read_checked_json, write_checked_json
from purerl.experiment.store.finished_run import read_run


def test_evaluation_of_a_saved_run(finished):
    played = evaluate_run(finished, episodes=300, seeds=[2, 0])
    returns = np.asarray(played.evaluation.episode_return)
    assert returns.shape == (2, 300)
    assert played.updates == 6
    policy = purerl.load_policy(finished, 2)
    number = jax.random.fold_in(purerl.seed_keys(0, [2])[0], 7)
    greedy_key, _ = jax.random.split(number)
    config = played.spec.config
    how = {"num_episodes": 150, "max_steps": config.time_limit}
    alone = jax.jit(functools.partial(purerl.evaluate, **how))(greedy_key, policy, config)
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


class Endless(Probe):
    """A probe without a time limit: its parameters name an infinite one."""

    @property
    def default_params(self):
        return ProbeParams(max_steps_in_episode=np.inf)


@pytest.mark.slow
def test_without_a_time_limit_max_steps_is_required(tmp_path):
    endless = Endless("match", length=0)
    train(tmp_path, env=endless, seeds=1, target_return=None)
    with pytest.raises(ValueError, match="max_steps is required"):
        evaluate_run(tmp_path, env=endless)
    played = evaluate_run(tmp_path, env=endless, episodes=2, max_steps=4)
    assert np.all(np.asarray(played.evaluation.episode_length) == 4)


class Other(Probe):
    """A probe whose class is another."""


class Heavy(NamedTuple):
    """The parameters of a probe, and one more."""

    max_steps_in_episode: float = 5
    reward_scale: float = 1.0
    gravity: float = 9.81


class Richer(Probe):
    """A probe with a parameter more."""

    @property
    def default_params(self):
        return Heavy()


READERS = {
    "evaluate": lambda run, **given: evaluate_run(run, episodes=2, **given),
    "render": lambda run, **given: render_run(run, 0, **given),
    "load": lambda run, config: purerl.load_policy(run, 0, config),
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The directory of a finished run of an environment of one's own, and its config."""
    directory = tmp_path_factory.mktemp("own")
    config = purerl.vpg(Probe("match", limit=True, length=0), **SIZES)
    how: Any = {"updates_per_chunk": 4, "evaluation_episodes": EPISODES, "progress": False}
    return directory, purerl.run(config, SEEDS, directory, **how).config


@pytest.mark.parametrize("reader", ["evaluate", "render"])
@pytest.mark.parametrize(
    ("env", "line"),
    [
        (
            Probe("last", limit=True, length=0),
            r"env is not that of the run.*env.reward: match, now",
        ),
        (Other("match", limit=True, length=0), r"env is not that of the run.*env.type"),
        (
            Richer("match", limit=True, length=0),
            "env = Richer does not have the parameters of Probe",
        ),
        (object(), "object has no method reset"),
    ],
)
def test_an_environment_that_is_not_that_of_the_run_is_refused_in_one_line(
    reader, env, line, own, without_type_checks
):
    with pytest.raises(ValueError, match=line) as error:
        READERS[reader](own[0], env=env)
    assert "\n" not in str(error.value)
    assert not list(own[0].glob("*.gif"))


@pytest.mark.parametrize("reader", READERS)
def test_a_config_that_is_not_that_of_the_run_is_refused_but_for_its_budget(reader, own):
    directory, config = own
    other = dataclasses.replace(config, baseline_epochs=config.baseline_epochs + 1)
    with pytest.raises(ValueError, match=r"config is not that of the run.*baseline_epochs: "):
        READERS[reader](directory, config=other)
    longer = config.replace(total_steps=600 * config.env_steps_per_update)
    READERS[reader](directory, config=longer)


def test_shapes_that_no_description_tells_are_refused(own, monkeypatch):
    monkeypatch.setattr(policies, "describe_state", lambda config: ["others"])
    with pytest.raises(ValueError, match=r"env is not that of the run.*the shapes of its states"):
        evaluate_run(own[0], env=own[1].env)


def test_few_seeds_are_played_on_no_more_devices(finished, monkeypatch):
    meshes, program_over_seeds = [], run_evaluation.program_over_seeds

    def seen(function, mesh, **how):
        meshes.append(mesh.size)
        return program_over_seeds(function, mesh, **how)

    monkeypatch.setattr(run_evaluation, "program_over_seeds", seen)
    evaluate_run(finished, episodes=1, seeds=[1], max_steps=1)
    evaluate_run(finished, episodes=150, seeds=[0, 1])  # the program of another test
    assert meshes == [1, 2]


@pytest.mark.parametrize("sampled", [False, True])
def test_only_the_episodes_that_are_asked_for_are_played(sampled, finished, monkeypatch):
    played, play_episodes = [], agents.play_episodes

    def counted(*args, greedy, **how):
        played.append(greedy)
        return play_episodes(*args, greedy=greedy, **how)

    monkeypatch.setattr(agents, "play_episodes", counted)
    result = evaluate_run(finished, episodes=11, sampled=sampled, seeds=[1])
    assert set(played) == {not sampled}
    policy = purerl.load_policy(finished, 1)
    keys = jax.random.split(jax.random.fold_in(purerl.seed_keys(0, [1])[0], 7))
    config = result.spec.config
    how = {"num_episodes": 11, "max_steps": config.time_limit, "greedy": not sampled}
    alone = jax.jit(functools.partial(purerl.evaluate, **how))(keys[int(sampled)], policy, config)
    np.testing.assert_array_equal(
        np.asarray(result.evaluation.episode_return)[0], np.asarray(alone.episode_return)
    )


def test_failed_seeds_are_named_in_the_file_and_the_table(finished, tmp_path):
    played = evaluate_run(finished, episodes=10, sampled=True, max_steps=3)
    returns = np.arange(40.0, dtype=np.float32).reshape(4, 10) ** 2
    played = played._replace(
        failed=np.array([False, True, False, True]),
        evaluation=dataclasses.replace(played.evaluation, episode_return=returns),
    )
    played.write(tmp_path / "evaluation.json")
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["failed_seeds"] == [1, 3]
    assert [seed for seed, mean in written["seeds"].items() if mean is None] == ["1", "3"]
    assert written["mean"]["value"] == pytest.approx(np.mean(returns[[0, 2]]))
    console = Console(width=100)
    with console.capture() as shown:
        console.print(evaluation_table(played))
    (line,) = [line for line in shown.get().splitlines() if "stopped being finite" in line]
    assert "1, 3" in line
    with pytest.raises(ValueError, match="every seed has failed"):
        played._replace(failed=np.ones(4, bool)).statistics()


def test_a_checkpoint_that_is_removed_while_it_is_read_gives_way_to_the_next(
    finished, tmp_path, monkeypatch
):
    copy = shutil.copytree(finished, tmp_path / "copy")
    newest = copy / "checkpoints/6"
    older = copy / "checkpoints/4"
    restore, taken = policies.restore_states, []

    def removed_once(directory, updates, like):
        taken.append(updates)
        if len(taken) == 1:  # training has written another, and removed this one
            newest.rename(copy / "checkpoints/next")
            shutil.copytree(finished / "checkpoints/6", older)
        if updates == 4:
            return restore(finished, 6, like)
        return restore(directory, updates, like)

    monkeypatch.setattr(policies, "restore_states", removed_once)
    updates = LoadedRun.read(copy).updates
    assert taken == [6, 4]
    assert updates == 4


def test_a_checkpoint_that_is_being_written_is_not_warned_of(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "checkpoints/7").mkdir()
    with Lock(copy), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LoadedRun.read(copy).updates == 6
    with pytest.warns(UserWarning, match="update 7 in .* is skipped"):
        assert LoadedRun.read(copy).updates == 6


def test_what_another_version_has_saved_in_another_format_is_refused_in_one_line(
    finished, tmp_path
):
    directory = shutil.copytree(finished, tmp_path / "run")
    header = read_checked_json(directory / "config.json")
    del header["format"]  # as before there was one
    write_checked_json(directory / "config.json", header)
    policy = tmp_path / "policy.npz"
    purerl.save_policy(policy, purerl.load_policy(finished, 1), purerl.preset("CartPole-v1", "vpg"))
    arrays = files.read_arrays(policy)
    told = json.loads(arrays["header"].tobytes()) | {"format": 1}
    arrays["header"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    files.write_arrays(policy, arrays)
    for read in (
        lambda: purerl.resume(directory, progress=False),
        lambda: evaluate_run(directory),
        lambda: read_run(directory),
        lambda: purerl.load_policy(policy),
    ):
        with pytest.raises(ValueError, match="another version of purerl, in format 1") as error:
            read()
        assert "\n" not in str(error.value)
