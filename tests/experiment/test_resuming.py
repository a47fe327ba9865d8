"""A run that stops and goes on ends bitwise as one that never stopped."""

import dataclasses
import errno
import fcntl
import json
import logging
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from interruptions import Interrupted, interrupt_after
from probes import Probe
from small import EPISODES, SEEDS, SIZES
from trees import assert_bitwise_equal

import purerl
from purerl.experiment.batches import SeedBatches
from purerl.experiment.hosts.stopping import RunError, Signals, Stopped
from purerl.experiment.store import checkpoints, header
from purerl.experiment.store.directory import Lock, is_in_use
from purerl.experiment.store.files import read_checked_json, write_checked_json
from purerl.experiment.store.finished_run import read_run, read_summary
from purerl.experiment.store.identity import MARK

HOW: dict[str, Any] = {"updates_per_chunk": 2, "checkpoint_every": 4, "progress": False}
GO_ON: dict[str, Any] = {"checkpoint_every": 4, "progress": False}


def config(**settings: Any):
    usual: Any = {
        "num_envs": 4,
        "rollout_length": 8,
        "total_steps": 4 * 8 * 24,
        "hidden": (8,),
        "normalize_obs": True,
        "normalize_reward": True,
        "max_grad_norm": np.inf,
        "schedule": {"policy_learning_rate": "linear", "baseline_learning_rate": "linear"},
    }
    return purerl.ppo("CartPole-v1", **(usual | settings))


def start(directory, seeds=3, **settings):
    how: Any = HOW | {"evaluate_every": 8, "evaluation_episodes": EPISODES}
    return purerl.run(config(**settings), seeds, directory, **how)


def interrupted(directory, monkeypatch, after, **settings):
    with monkeypatch.context() as patch:
        interrupt_after(after, patch)
        with pytest.raises(Interrupted):
            start(directory, **settings)


def assert_same(run, other):
    assert_bitwise_equal(run.states, other.states)
    assert_bitwise_equal(run.metrics, other.metrics)
    assert_bitwise_equal(run.evaluations, other.evaluations)
    with (
        np.load(run.directory / "metrics.npz") as ours,
        np.load(other.directory / "metrics.npz") as theirs,
    ):
        assert set(ours) == set(theirs)
        for name in set(ours) - {MARK}:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return start(tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    directory = tmp_path_factory.mktemp("died") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupted(directory, monkeypatch, 12)
    return directory


@pytest.fixture
def stopped(died, tmp_path):
    """A run that died at update 14, with checkpoints of updates 8 and 12."""
    return shutil.copytree(died, tmp_path / "run")


def found(directory):
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())


def test_resumed_run_ends_bitwise_as_one_that_ran_through(stopped, straight, monkeypatch):
    assert found(stopped) == [8, 12]
    with monkeypatch.context() as patch:  # and once more
        interrupt_after(18, patch)
        with pytest.raises(Interrupted):
            purerl.resume(stopped, **GO_ON)
    seen = []
    again = purerl.resume(stopped, hooks=[seen.append], **GO_ON)
    assert again.resumed_at == 16
    assert_same(again, straight)
    # What was there before comes in pieces, each to the next update at which episodes were played.
    assert [chunk.updates for chunk in seen] == [8, 16, 18, 20, 22, 24]
    played = [chunk.updates for chunk in seen if chunk.greedy_return is not None]
    assert played == straight.evaluations.updates.tolist()
    together = np.concatenate([chunk.metrics.entropy for chunk in seen], axis=1)
    np.testing.assert_array_equal(together, straight.metrics.entropy)


def test_a_run_that_died_before_its_first_checkpoint_starts_from_zero(
    tmp_path, monkeypatch, straight
):
    interrupted(tmp_path, monkeypatch, 2)
    assert checkpoints.latest_checkpoint(tmp_path) is None
    again = purerl.resume(tmp_path, **GO_ON)
    assert again.resumed_at == 0
    assert_same(again, straight)


def test_a_finished_run_is_loaded_and_left_as_it_is(straight, monkeypatch):
    before = {p: p.read_bytes() for p in straight.directory.rglob("*") if p.is_file()}
    with monkeypatch.context() as elsewhere:
        other = header.runtime_info() | {"cores": 64}  # nothing is left to compute there
        elsewhere.setattr("purerl.experiment.resume_checks.runtime_info", lambda: other)
        elsewhere.delattr("purerl.experiment.session.compile_programs")
        again = purerl.resume(straight.directory, progress=False)
    assert_same(again, straight)
    assert repr(again.summary()) == repr(straight.summary())  # with NaN for an interval
    assert before == {p: p.read_bytes() for p in straight.directory.rglob("*") if p.is_file()}


@pytest.mark.filterwarnings("ignore:the schedule now runs")
def test_a_finished_run_is_loaded_where_there_are_fewer_devices(straight, tmp_path):
    run = shutil.copytree(straight.directory, tmp_path / "run")
    header = read_checked_json(run / "config.json") | {"mesh": {"seeds": 4}}
    write_checked_json(run / "config.json", header)
    assert len(purerl.resume(run, progress=False).seed_ids) == 3
    with pytest.raises(ValueError, match=r"the run's mesh, \{'seeds': 4\}, needs 4 devices"):
        purerl.resume(run, total_steps=2 * header["config"]["num_updates"] * 32, progress=False)


def test_a_missing_result_is_written(stopped, straight):
    purerl.resume(stopped, **GO_ON)
    for name in ("summary.json", "metrics.npz"):
        (stopped / name).unlink()
    assert_same(purerl.resume(stopped, progress=False), straight)
    assert (stopped / "summary.json").exists()


@pytest.mark.slow
def test_what_trains_is_not_finished(stopped, monkeypatch):
    purerl.resume(stopped, **GO_ON)
    interrupt_after(26, monkeypatch)
    with pytest.warns(UserWarning, match="schedule now runs"):  # noqa: SIM117
        with pytest.raises(Interrupted):
            purerl.resume(stopped, total_steps=4 * 8 * 36, **GO_ON)
    assert not {"summary.json", "metrics.npz"} & {path.name for path in stopped.iterdir()}


def test_a_budget_cut_to_where_a_run_stands_is_evaluated_there(stopped):
    with pytest.warns(UserWarning, match="schedule now runs"):
        short = purerl.resume(stopped, total_steps=4 * 8 * 12, **GO_ON)
    assert short.evaluations is not None
    np.testing.assert_array_equal(short.evaluations.updates, [8, 12])
    assert short.evaluation is not None
    assert json.loads((stopped / "summary.json").read_text())["num_updates"] == 12
    assert_same(purerl.resume(stopped, **GO_ON), short)  # what was played is kept


def test_a_result_without_its_last_evaluation_has_none(straight):
    longer = straight.config.replace(total_steps=4 * 8 * 48)
    assert dataclasses.replace(straight, config=longer).evaluation is None


def test_episodes_are_played_after_the_state_is_saved(tmp_path, monkeypatch, straight):
    evaluate = SeedBatches.evaluate

    def fails(self, states, updates):
        if updates == 24:
            raise RunError("out of memory")
        return evaluate(self, states, updates)

    with monkeypatch.context() as patch:
        patch.setattr(SeedBatches, "evaluate", fails)
        with pytest.raises(RunError):
            start(tmp_path)
    again = purerl.resume(tmp_path, **GO_ON)
    assert again.resumed_at == 24
    assert_same(again, straight)


def test_an_unfinished_run_is_not_started_anew(stopped):
    with pytest.raises(ValueError, match=r"has stopped at update 12 of 24; .* goes on"):
        start(stopped)
    assert found(stopped) == [8, 12]


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file() and path.stat().st_size)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "emptied":
        data = bytearray()
    elif how == "truncated":
        data = data[:-1]
    elif how == "removed":
        path.unlink()
        return
    else:
        data[len(data) // 2] ^= 1 << 4
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["emptied", "truncated", "flipped", "removed"])
def test_every_damaged_file_of_a_checkpoint_is_found(how, stopped):
    step = stopped / "checkpoints/12"
    names = [path.relative_to(step) for path in files_of(step)]
    assert len(names) == 2
    for name in names:
        copy = stopped.with_name("copy")
        shutil.copytree(stopped, copy)
        damage(copy / "checkpoints/12" / name, how)
        with pytest.warns(UserWarning, match="checkpoint of update 12 .* is skipped"):
            assert checkpoints.latest_resumable(copy) == 8
        shutil.rmtree(copy)


@pytest.mark.parametrize("how", ["emptied", "truncated", "flipped", "removed"])
def test_damaged_records_are_found(how, stopped):
    damage(stopped / "records/000000008-000000012.npz", how)
    with pytest.warns(UserWarning, match="000000008-000000012.npz has changed since it"):
        assert checkpoints.latest_resumable(stopped) == 8
    assert checkpoints.latest_checkpoint(stopped) == 12  # whose states are sound


def test_a_file_that_cannot_be_read_is_damage(stopped, monkeypatch):
    def unreadable(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("purerl.experiment.store.checkpoints.sha256", unreadable)
    with pytest.raises(ValueError, match=r"none is sound: of update 12, .* cannot be read: Input"):
        purerl.resume(stopped, **GO_ON)


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(stopped, straight):
    damage(files_of(stopped / "checkpoints/12")[-1], "flipped")
    with pytest.warns(UserWarning, match="checkpoint of update 12"):
        again = purerl.resume(stopped, **GO_ON)
    assert again.resumed_at == 8
    assert_same(again, straight)


def test_with_nothing_sound_a_run_starts_from_zero_only_when_forced(stopped, straight):
    damage(stopped / "records/000000000-000000004.npz", "flipped")  # which all checkpoints need
    with pytest.raises(ValueError, match=r"none is sound: of update 12, .*000000004.npz has"):
        purerl.resume(stopped, **GO_ON)
    assert found(stopped) == [8, 12]
    with pytest.warns(UserWarning, match="is skipped"):
        again = purerl.resume(stopped, force=True, **GO_ON)
    assert again.resumed_at == 0
    assert_same(again, straight)


@pytest.mark.parametrize("how", ["emptied", "truncated", "flipped", "removed"])
def test_a_damaged_header_is_found_and_taken_from_the_checkpoint(how, stopped, straight):
    damage(stopped / "config.json", how)
    with pytest.warns(UserWarning, match="config.json is damaged; the copy in the checkpoint"):
        again = purerl.resume(stopped, **GO_ON)
    assert_same(again, straight)


def test_every_flipped_bit_of_a_header_is_found(stopped):
    path = stopped / "config.json"
    sound = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, 8 * len(sound), 100):
        data = bytearray(sound)
        data[place // 8] ^= 1 << int(place % 8)
        path.write_bytes(bytes(data))
        assert header.find_header(stopped) == {}


def test_another_config_says_what_differs_and_needs_force(stopped):
    other = config(discount=0.5)
    with pytest.raises(ValueError, match=r"discount: 0.99\d*, now 0.5.*use force=True"):
        purerl.resume(stopped, other, **GO_ON)
    with pytest.raises(ValueError, match="states of this run do not fit the config"):
        purerl.resume(stopped, config(hidden=(16,)), force=True, **GO_ON)
    with pytest.warns(UserWarning, match="not the same as before: hyper.discount"):
        forced = purerl.resume(stopped, other, force=True, **GO_ON)
    assert forced.resumed_at == 12


def test_what_was_trained_under_which_settings_is_kept_and_shown(tmp_path, monkeypatch, capsys):
    """A run that is forced to go on under others, twice, and is read by all that shows it."""
    from rich.console import Console

    from purerl.cli import tables
    from purerl.experiment.play.run_evaluation import evaluate_run
    from purerl.experiment.report.comparison import compare_runs
    from purerl.experiment.report.exports import write_table

    interrupted(tmp_path / "run", monkeypatch, 12)
    before = read_checked_json(tmp_path / "run/config.json")
    assert before["provenance"] == []
    with monkeypatch.context() as patch:
        interrupt_after(20, patch)
        other = config(discount=0.5)
        with pytest.warns(UserWarning, match="discount"), pytest.raises(Interrupted):
            purerl.resume(tmp_path / "run", other, force=True, **GO_ON)
    with pytest.warns(UserWarning, match="gae_lambda"):
        result = purerl.resume(
            tmp_path / "run", config(discount=0.5, gae_lambda=0.25), force=True, **GO_ON
        )
    parts = read_checked_json(tmp_path / "run/config.json")["provenance"]
    assert [part["first_update"] for part in parts] == [0, 12, 20]
    assert parts == list(result.provenance)
    told = [
        (part["config"]["hyper"][name]) for name in ("discount", "gae_lambda") for part in parts
    ]
    np.testing.assert_allclose(told, [0.99, 0.5, 0.5, 0.95, 0.95, 0.25])
    assert parts[0]["config"] == before["config"]
    assert parts[0]["where"]["device"] == before["device"]
    purerl.resume(tmp_path / "run", config(discount=0.5, gae_lambda=0.25), **GO_ON)
    assert read_checked_json(tmp_path / "run/config.json")["provenance"] == parts

    def shown(table):
        console = Console(width=250)
        with console.capture() as captured:
            console.print(table)
        (line,) = [line for line in captured.get().splitlines() if "settings changed" in line]
        return line

    tables.show_result(result, 0.0)
    lines = [" ".join(capsys.readouterr().out.replace("│", " ").split())]
    given = config(discount=0.5, gae_lambda=0.25)
    lines.append(
        shown(tables.evaluation_table(evaluate_run(tmp_path / "run", episodes=2, config=given)))
    )
    lines.append(shown(tables.comparison_table(compare_runs([tmp_path / "run"]))))
    for line in lines:
        assert "from update 12 hyper.discount: 0.99" in line
        assert "from update 20 hyper.gae_lambda: 0.9" in line
    write_table(read_run(tmp_path / "run"), tmp_path / "table.csv")
    rows = [row.split(",") for row in (tmp_path / "table.csv").read_text().splitlines()]
    part, updates = rows[0].index("part"), rows[0].index("updates")
    for row in rows[1:]:
        assert int(row[part]) == (int(row[updates]) > 12) + (int(row[updates]) > 20)


def test_a_run_that_goes_on_further_has_one_part_and_is_restored_quietly(
    tmp_path, monkeypatch, caplog, capfd
):
    interrupted(tmp_path / "a", monkeypatch, 12, schedule={})
    capfd.readouterr()
    with caplog.at_level(logging.INFO):
        purerl.resume(tmp_path / "a", total_steps=4 * 8 * 32, **GO_ON)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert read_checked_json(tmp_path / "a/config.json")["provenance"] == []


def test_another_version_device_or_core_count_needs_force(stopped, straight, monkeypatch):
    here = header.runtime_info()
    device = here["device"] | {"features": "elsewhere"}
    other = here | {
        "device": device,
        "cores": 64,
        "versions": here["versions"] | {"jax": "9.9", "python": "3.99"},
    }
    monkeypatch.setattr("purerl.experiment.resume_checks.runtime_info", lambda: other)
    with pytest.raises(
        ValueError,
        match=r"versions.jax: .*, now 9.9; device.f.*: .*, now elsewhere; cores: \d+, now 64",
    ) as error:
        purerl.resume(stopped, **GO_ON)
    assert "\n" not in str(error.value)
    assert "3.99" not in str(error.value)  # Python's own version changes no result
    with pytest.warns(UserWarning, match="not the same as before"):
        assert_same(purerl.resume(stopped, force=True, **GO_ON), straight)


EXCLUDED = "--xla_gpu_exclude_nondeterministic_ops"


@pytest.mark.parametrize(
    ("platform", "flags", "warned"),
    [
        ("cpu", None, False),
        ("gpu", None, True),
        ("gpu", EXCLUDED, True),
        ("gpu", f"{EXCLUDED}=false --xla_gpu_autotune_level=0", True),
        ("gpu", f"{EXCLUDED} --xla_gpu_autotune_level=0", False),
        ("gpu", f"{EXCLUDED}=true --xla_gpu_load_autotune_results_from=a.txt", False),
        ("gpu", header.DETERMINISTIC_FLAGS, False),
        ("gpu", "--xla_gpu_deterministic_ops=true", False),
    ],
)
def test_a_gpu_that_was_not_told_to_be_exact_is_warned_of(platform, flags, warned):
    told = {"device": {"platform": platform}, "flags": {"XLA_FLAGS": flags}}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        header.warn_if_nondeterministic(told)
    assert [header.DETERMINISTIC_FLAGS in str(each.message) for each in said] == [True] * warned


def test_only_a_run_that_goes_on_is_warned_of_its_gpu(stopped, monkeypatch):
    seen = []
    monkeypatch.setattr("purerl.experiment.resuming.warn_if_nondeterministic", seen.append)
    purerl.resume(stopped, **GO_ON)
    assert [each["device"]["platform"] for each in seen] == ["cpu"]
    purerl.resume(stopped, **GO_ON)  # loads it
    assert len(seen) == 1


def test_a_longer_budget_says_what_it_does_to_the_schedules(stopped):
    with pytest.warns(
        UserWarning, match="over 36 updates instead of 24: at update 12 .* goes from 0.5 to 0.667"
    ):
        longer = purerl.resume(stopped, total_steps=4 * 8 * 36, **GO_ON)
    assert longer.metrics.entropy.shape == (3, 36)
    with pytest.raises(ValueError, match="less than the 1152 that are trained already"):
        purerl.resume(stopped, total_steps=320, progress=False)


@pytest.mark.slow
def test_a_longer_budget_without_schedules_is_that_run_from_the_start(tmp_path):
    usual: Any = HOW | {"evaluation_episodes": 0}
    whole = purerl.run(config(schedule={}, total_steps=4 * 8 * 32), 3, tmp_path / "whole", **usual)
    purerl.run(config(schedule={}), 3, tmp_path / "part", **usual)
    longer = purerl.resume(tmp_path / "part", total_steps=4 * 8 * 32, **GO_ON)
    assert_bitwise_equal(longer.states, whole.states)
    assert_bitwise_equal(longer.metrics, whole.metrics)


def test_an_environment_of_ones_own_is_asked_for(tmp_path, monkeypatch):
    own = purerl.vpg(Probe("match", limit=True, length=0), **SIZES)
    how: Any = HOW | {"updates_per_chunk": 4, "evaluation_episodes": EPISODES}
    interrupt_after(4, monkeypatch)
    with pytest.raises(Interrupted):
        purerl.run(own, SEEDS, tmp_path, **how)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="env of this run is not purerl's or gymnax's own"):
        purerl.resume(tmp_path, **GO_ON)
    changed = Probe("last", limit=True, length=0)
    with pytest.raises(ValueError, match=r"env.reward: match, now last.*use force=True"):
        purerl.resume(tmp_path, env=changed, **GO_ON)
    assert purerl.resume(tmp_path, env=own.env, **GO_ON).resumed_at == 4
    assert purerl.resume(tmp_path, own, progress=False).resumed_at == 4  # of what has ended it


def test_what_cannot_go_on_is_refused_when_forced_too(stopped):
    for other, line in (
        (config(log_every=2), "log_every = 2 was 1 before"),
        (config(total_steps=4 * 8 * 6), "num_updates = 6 is less than the 12 that are trained"),
    ):
        with pytest.raises(ValueError, match=line):
            purerl.resume(stopped, other, force=True, **GO_ON)
    assert found(stopped) == [8, 12]


def test_another_seed_batch_needs_force(tmp_path, monkeypatch):
    interrupted(tmp_path, monkeypatch, 12, seeds=4)
    with pytest.raises(ValueError, match=r"seed_batch: 4, now 3\. The result could change"):
        purerl.resume(tmp_path, seed_batch=3, **GO_ON)
    with pytest.warns(UserWarning, match="seed_batch: 4, now 3"):  # 3 and 1, each padded to 4
        again = purerl.resume(tmp_path, seed_batch=3, force=True, **GO_ON)
    assert again.resumed_at == 12
    assert again.metrics.entropy.shape == (4, 24)


def test_what_dies_while_it_compiles_can_be_resumed(tmp_path, monkeypatch, straight):
    def dies(*args, **how):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("purerl.experiment.session.compile_programs", dies)
        with pytest.raises(Interrupted):
            start(tmp_path)
    assert_same(purerl.resume(tmp_path, **GO_ON), straight)


@pytest.mark.slow
def test_what_is_refused_while_it_compiles_leaves_the_directory_free(tmp_path):
    with pytest.raises(ValueError, match="memory_limit = 10 kB on each device is less"):
        purerl.run(config(), 3, tmp_path, memory_limit=10_000, progress=False)
    assert not (tmp_path / "config.json").exists()


def test_a_damaged_header_without_a_checkpoint_says_that_nothing_can_be_restored(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="nothing can be restored; put it back") as error:
        purerl.resume(tmp_path)
    assert "\n" not in str(error.value)


def test_a_lock_that_fails_says_why(tmp_path, monkeypatch):
    def fails(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fails)
    with pytest.raises(ValueError, match="cannot be locked: No locks available"), Lock(tmp_path):
        pass


def test_keys_come_back_with_their_implementation(tmp_path):
    from purerl.experiment.store.checkpoint_writer import CheckpointWriter
    from purerl.experiment.store.identity import Identity
    from purerl.experiment.store.records import Records

    states = {"key": jax.random.split(jax.random.key(0, impl="rbg"), 2)}
    writer = CheckpointWriter(tmp_path, Identity.new()._asdict(), 0)
    writer.save(checkpoints.Snapshot(1, states, Records()))  # pyright: ignore[reportArgumentType]
    writer.wait()
    like = jax.eval_shape(lambda: states)
    assert_bitwise_equal(checkpoints.restore_states(tmp_path, 1, like), states)
    assert checkpoints.restore_states(tmp_path, 1, like)["key"].dtype == states["key"].dtype


def test_no_run_to_go_on_with(tmp_path):
    with pytest.raises(ValueError, match=r"is not there; name .* or start one: purerl train"):
        purerl.resume(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_two_runs_in_one_directory_at_once_are_refused(tmp_path):
    with Lock(tmp_path), pytest.raises(ValueError, match="in use by another run"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = f"""
import os, signal, pathlib
from purerl.experiment.store.directory import Lock
from purerl.experiment.store.files import write_checked_json
with Lock(pathlib.Path({str(tmp_path)!r})):
    print("held", flush=True)
    signal.pause()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="in use by another run"), Lock(tmp_path):
            pass
        holder.kill()
    with Lock(tmp_path):
        pass


def test_a_sweep_is_not_resumed(tmp_path, monkeypatch):
    def dies(*args):
        raise Interrupted

    swept = purerl.sweep(purerl.vpg("CartPole-v1", **SIZES), discount=[0.9, 0.99])
    with monkeypatch.context() as patch:  # its header is written when it has compiled
        for name in ("session.Session.compile", "sweep_runner.SeedBatches"):
            patch.setattr(f"purerl.experiment.{name}", mock.MagicMock())
        patch.setattr("purerl.experiment.sweep_runner.require_sound_start", lambda *args: None)
        patch.setattr("purerl.experiment.sweep_runner._train", dies)
        with pytest.raises(Interrupted):
            purerl.run_sweep(swept, 2, tmp_path, progress=False)
    assert (tmp_path / "config.json").exists()
    with pytest.raises(ValueError, match="holds a sweep"):
        purerl.resume(tmp_path)


@pytest.mark.parametrize("algo", ["reinforce", "vpg", "a2c", "ppo"])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "Breakout-MinAtar"])
def test_a_config_is_rebuilt_from_its_header(algo, env):
    from purerl.experiment.store.fingerprint import describe
    from purerl.experiment.store.header import describe_asked
    from purerl.experiment.store.rebuild import rebuild_config

    made = purerl.preset(env, algo, hidden=(32,))
    described, asked = json.loads(json.dumps([describe(made), describe_asked(made.asked)]))
    again = rebuild_config(described, asked, env)
    assert vars(again.asked) == vars(made.asked)
    assert jax.tree.structure(again) == jax.tree.structure(made)
    assert_bitwise_equal(again, made)
    assert describe(again) == describe(made)


def test_the_lookahead_of_a_run_is_in_its_header_and_another_is_refused(tmp_path, monkeypatch):
    from purerl.experiment.store.header import describe_asked
    from purerl.experiment.store.rebuild import rebuild_config

    made = purerl.reinforce("CartPole-v1", **SIZES)
    with monkeypatch.context() as patch:
        interrupt_after(4, patch)
        with pytest.raises(Interrupted):
            purerl.run(made, 2, tmp_path, **HOW)
    told = read_checked_json(tmp_path / "config.json")["config"]
    assert told["lookahead"] is None
    other = dataclasses.replace(made, lookahead=3)
    with pytest.raises(ValueError, match=r"lookahead: none, now 3.*use force=True"):
        purerl.resume(tmp_path, other, **GO_ON)
    asked = describe_asked(made.asked)
    assert rebuild_config(told | {"lookahead": 3}, asked, "CartPole-v1") == other


def test_nothing_that_a_header_names_is_imported(stopped, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("class Env: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = header.find_header(stopped)
    assert told
    told["config"]["env"]["type"] = told["env"] = "evil:Env"
    write_checked_json(stopped / "config.json", told)
    with pytest.raises(ValueError, match="env of this run is not"):
        purerl.resume(stopped)
    assert "evil" not in sys.modules


def test_keep_checkpoints_keeps_as_many(straight, tmp_path):
    assert found(straight.directory) == [20, 24]
    for bad, line in ((1, "must be at least 2"), (0, "must be a whole number")):
        with pytest.raises(ValueError, match=line):
            purerl.run(config(), 2, tmp_path / "x", keep_checkpoints=bad)
    assert not Path(tmp_path / "x").exists()


def test_a_manifest_that_was_being_written_anew_does_not_damage_the_checkpoint(stopped):
    part = stopped / "checkpoints/12/.manifest.json.0123abcd.part"
    part.write_text("{")  # as a kill leaves it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.latest_resumable(stopped) == 12


class Told(Signals):
    """A stand-in for `Signals`: one came while the run compiled."""

    def __init__(self):
        self.received = 15

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.filterwarnings("ignore:the schedule now runs")
def test_another_budget_is_not_forgotten_where_the_run_is_stopped_while_it_compiles(
    straight, tmp_path, monkeypatch
):
    directory = shutil.copytree(straight.directory, tmp_path / "run")
    before = (directory / "config.json").read_bytes()
    decided: Any = {"total_steps": 4 * 8 * 36, "progress": False}

    def refuse(*_, **__):
        raise ValueError("it does not fit")

    with monkeypatch.context() as patch:
        patch.setattr("purerl.experiment.session.compile_programs", refuse)
        with pytest.raises(ValueError, match="it does not fit"):
            purerl.resume(directory, **decided)
    assert (directory / "config.json").read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr("purerl.experiment.session.Signals", Told)
        with pytest.raises(Stopped, match="stopped before training; to go on: purerl resume"):
            purerl.resume(directory, **decided)
    assert purerl.resume(directory, progress=False).config.num_updates == 36


def test_who_looks_at_a_lock_does_not_refuse_a_run(tmp_path):
    with Lock(tmp_path):
        assert is_in_use(tmp_path)
    with open(tmp_path / ".lock", "rb") as looks:
        fcntl.flock(looks, fcntl.LOCK_SH)
        timer = threading.Timer(0.03, lambda: fcntl.flock(looks, fcntl.LOCK_UN))
        timer.start()
        with Lock(tmp_path):
            pass
        timer.join()


def test_whether_there_is_a_result_is_for_the_first_process_to_say(straight, tmp_path, monkeypatch):
    directory, asked = shutil.copytree(straight.directory, tmp_path / "run"), []

    def on_first(function, *args):
        asked.append(function)
        return json.loads(json.dumps(function(*args)))  # as the others hear it

    monkeypatch.setattr("purerl.experiment.resuming.on_main_process", on_first)
    assert purerl.resume(directory, progress=False).times.compile > 0
    assert read_summary in asked
