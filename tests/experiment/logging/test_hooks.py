"""Hooks and loggers: they see everything, and nothing that they do stops a run."""

import json
import sys
import threading
import time
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from probes import Probe, Sick
from small import EPISODES, SIZES
from trees import assert_bitwise_equal

import purerl
from purerl.checks import speaking_to_a_shell
from purerl.experiment.logging.loggers import read_wandb_id, record_rows
from purerl.experiment.logging.rebuilding import (
    describe_hooks,
    rebuild_loggers,
    take_over_projects,
)
from purerl.experiment.loop import TrainingLoop
from purerl.experiment.store.checkpoint_writer import CheckpointWriter
from purerl.experiment.store.checkpoints import list_checkpoints
from purerl.experiment.store.directory import Lock
from purerl.experiment.store.files import write_checked_json
from purerl.experiment.store.identity import Identity


def run(directory, hooks, env=None, seeds=3, **options):
    config = purerl.vpg(env or Probe("match", limit=True, length=0), log_every=2, **SIZES)
    how: Any = {"updates_per_chunk": 4, "evaluation_episodes": EPISODES, "progress": False}
    return purerl.run(config, seeds, directory, hooks=hooks, **(how | options))


def test_a_hook_that_raises_is_told_once_and_stops_nothing(tmp_path):
    seen, failures = [], []

    def broken(chunk):
        failures.append(chunk.updates)
        raise OSError("the server is gone")

    with pytest.warns(UserWarning, match="hook broken failed: OSError: the server is") as told:
        result = run(tmp_path / "a", [broken, seen.append])
    assert len(told) == 1
    assert failures == [4, 8, 12]
    assert [chunk.updates for chunk in seen] == [4, 8, 12]
    assert_bitwise_equal(result.metrics, run(tmp_path / "b", []).metrics)


def test_a_hook_that_exits_is_told_too_and_called_again(tmp_path):
    seen = []

    def leaves(chunk):
        seen.append(chunk.updates)
        raise SystemExit(3)

    with pytest.warns(UserWarning, match="hook leaves failed: SystemExit: 3; training goes on"):
        run(tmp_path, [leaves])
    assert seen == [4, 8, 12]


def test_a_second_interrupt_waits_neither_for_a_hook_nor_for_a_checkpoint(tmp_path, monkeypatch):
    never, record = threading.Event(), TrainingLoop._record

    def interrupt(self, now):
        if now.updates > 4:
            raise KeyboardInterrupt
        record(self, now)

    monkeypatch.setattr(TrainingLoop, "_record", interrupt)
    monkeypatch.setattr(CheckpointWriter, "wait", lambda self: never.wait(120))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [lambda chunk: never.wait(120)])
    assert time.monotonic() - start < 25  # `HOOK_TIMEOUT` is longer
    never.set()


def test_a_slow_hook_does_not_hold_up_training_and_misses_nothing(tmp_path):
    gate, seen, trained = threading.Event(), [], []

    def slow(chunk):
        assert gate.wait(60)
        seen.append(chunk.updates)

    def opens_the_gate(chunk):
        trained.append(chunk.updates)
        if chunk.updates == 12:  # training is over; the other has seen nothing yet
            assert not seen
            gate.set()

    run(tmp_path, [slow, opens_the_gate])
    assert trained == seen == [4, 8, 12]


def test_a_hook_that_never_returns_holds_up_nothing_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr("purerl.experiment.logging.hooks.HOOK_TIMEOUT", 0.5)
    never, finished = threading.Event(), []

    def stuck(chunk):
        never.wait(120)

    def slow(chunk):
        time.sleep(0.3)
        finished.append(chunk)

    with pytest.warns(UserWarning, match="the hook stuck has not come back .* 4 calls") as told:
        run(tmp_path, [stuck, slow])
    never.set()
    assert len(told) == 1
    assert len(finished) == 3  # slow ones lose nothing
    assert (tmp_path / "summary.json").exists()
    with Lock(tmp_path):
        pass


def test_a_logger_serves_a_second_run(tmp_path):
    logger = purerl.JsonLines()
    for name in ("a", "b"):
        run(tmp_path / name, [logger])
        assert len((tmp_path / name / "metrics.jsonl").read_text().splitlines()) == 6


def test_a_chunk_holds_copies_and_says_when(tmp_path):
    chunks = []
    result = run(tmp_path, [chunks.append], evaluate_every=8)
    for place, chunk in enumerate(chunks):  # nothing that came later has changed them
        records = slice(2 * place, 2 * place + 2)
        np.testing.assert_array_equal(chunk.metrics.entropy, result.metrics.entropy[:, records])
    first = chunks[0]
    assert first.directory == tmp_path
    np.testing.assert_array_equal(first.record_updates, [2, 4])
    np.testing.assert_array_equal(first.record_env_steps, [64, 128])
    assert first.metrics.entropy.shape == (3, 2)
    with pytest.raises(ValueError, match="read-only"):  # it is the other hooks' too
        first.metrics.entropy[:] = 0
    assert [chunk.greedy_return is not None for chunk in chunks] == [False, True, True]
    assert chunks[1].greedy_return.shape == chunks[1].sampled_return.shape == (3,)


@pytest.mark.slow
def test_numbers_over_seeds_leave_out_what_failed_and_what_is_not_there(tmp_path):
    chunks = []
    result = run(tmp_path, [chunks.append], env=Sick(), seeds=8)
    assert 0 < len(result.failed_seeds) < 8
    last = chunks[-1]
    alive = ~np.isin(result.seed_ids, result.failed_seeds)
    expected = result.metrics.entropy[alive, -1].mean()
    assert last.over_seeds()["entropy"][-1] == pytest.approx(float(expected), rel=1e-6)
    told = record_rows(last, per_seed=True)[-1]
    assert told["failed_seeds"] == len(result.failed_seeds)
    assert told[f"entropy/seed_{result.failed_seeds[0]}"] is None
    json.dumps(told, allow_nan=False)


def test_json_lines_hold_every_record(tmp_path):
    result = run(tmp_path, [purerl.JsonLines(per_seed=True)], evaluate_every=8)
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in written] == [2, 4, 6, 8, 10, 12]
    assert [line["env_steps"] for line in written] == [64, 128, 192, 256, 320, 384]
    for seed in range(3):
        told = [line[f"policy_loss/seed_{seed}"] for line in written]
        np.testing.assert_allclose(told, result.metrics.policy_loss[seed], rtol=1e-6)
    assert ["greedy_return" in line for line in written] == [False] * 3 + [True, False, True]


def test_json_lines_are_whole_after_a_resume(tmp_path):
    run(tmp_path, [purerl.JsonLines()], checkpoint_every=4)
    sound = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(sound[: len(sound) // 2])  # as a kill leaves it
    env = Probe("match", limit=True, length=0)
    purerl.resume(tmp_path, env=env, hooks=[purerl.JsonLines()], progress=False)
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in written] == [2, 4, 6, 8, 10, 12]


def test_a_run_that_goes_on_keeps_its_loggers_and_checkpoints(tmp_path, monkeypatch):
    from interruptions import Interrupted, interrupt_after

    def show(chunk):
        pass

    env = Probe("match", limit=True, length=0)
    log = tmp_path / "a/mine.jsonl"
    hooks = [purerl.JsonLines(per_seed=True), purerl.JsonLines(log), show]
    with monkeypatch.context() as patch:
        interrupt_after(8, patch)
        with pytest.raises(Interrupted):
            run(tmp_path / "a", hooks, checkpoint_every=4, keep_checkpoints=3)
    logs = [tmp_path / "a/metrics.jsonl", log]
    for log in logs:
        log.unlink()
    with pytest.warns(UserWarning, match="not called any more: show; give all of them again"):
        purerl.resume(tmp_path / "a", env=env, progress=False)
    usual, mine = ([json.loads(line) for line in log.read_text().splitlines()] for log in logs)
    for written in (usual, mine):
        assert [line["updates"] for line in written] == [2, 4, 6, 8, 10, 12]
    assert "policy_loss/seed_1" in usual[-1]
    assert "policy_loss/seed_1" not in mine[-1]
    assert list_checkpoints(tmp_path / "a") == [12, 8, 4]

    logs[0].unlink()
    purerl.resume(tmp_path / "a", env=env, progress=False)  # it is finished: only loaded
    assert not logs[0].exists()


def test_the_result_is_written_when_hooks_have_heard_of_all(tmp_path):
    """A run that is killed before has no result, and its loggers are told again."""
    finished = []

    def slow(chunk):
        time.sleep(0.3)
        finished.append((tmp_path / "summary.json").exists())

    env = Probe("match", limit=True, length=0)
    run(tmp_path, [slow, purerl.JsonLines()])
    assert finished == [False] * 3
    log = tmp_path / "metrics.jsonl"
    log.unlink()
    (tmp_path / "summary.json").unlink()  # as a kill leaves it
    with pytest.warns(UserWarning, match="slow"):
        purerl.resume(tmp_path, env=env, progress=False)
    assert len(log.read_text().splitlines()) == 6
    # None is asked for.
    log.unlink()
    (tmp_path / "summary.json").unlink()
    purerl.resume(tmp_path, env=env, hooks=[], progress=False)
    assert not log.exists()


def test_hooks_are_described_so_that_those_that_write_into_the_run_can_be_made_again(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    hooks = [
        purerl.TensorBoard(tmp_path / "run/board", per_seed=True),
        purerl.JsonLines(),
        purerl.JsonLines(elsewhere),
        purerl.WeightsAndBiases(project="mine", mode="offline", settings=object()),
        print,
        np.mean,
    ]
    described = describe_hooks(hooks)
    with pytest.warns(UserWarning, match="give") as told:
        board, lines = rebuild_loggers(json.loads(json.dumps(described)), tmp_path / "run")
    assert (board.directory, board.per_seed) == (str(tmp_path / "run/board"), True)
    assert (lines.path, lines.per_seed) == (None, False)
    first, second, third = (str(each.message) for each in told)
    assert f"jsonl wrote to '{elsewhere}', outside of the run" in first
    board_again = f"purerl.TensorBoard({str(tmp_path / 'run/board')!r}, per_seed=True)"
    lines_again = f"purerl.JsonLines(), purerl.JsonLines('{elsewhere}')"
    again = f"give it again: hooks=[{board_again}, {lines_again}, purerl.WeightsAndBiases()]."
    assert first.endswith(again)
    assert second.endswith(again)
    assert "not called any more: print, mean; give all" in third
    with speaking_to_a_shell(), pytest.warns(UserWarning, match="give") as told:
        rebuild_loggers(described, tmp_path / "run")
    (line,) = (str(each.message) for each in told if "sends" in str(each.message))
    assert line.endswith("give it again: --log tensorboard jsonl wandb --log-seeds.")
    (again,) = take_over_projects([purerl.WeightsAndBiases(mode="offline")], described)
    assert again.settings == {"project": "mine", "mode": "offline"}
    (other,) = take_over_projects([purerl.WeightsAndBiases(project="other")], described)
    assert other.settings == {"project": "other"}


@pytest.mark.parametrize(
    "described",
    [
        {"logger": "jsonl", "arguments": {"path": "/etc/passwd"}},
        {"logger": "jsonl", "arguments": {"path": "a\0b"}},
        {"logger": "jsonl", "arguments": {"path": ["a"]}},
        {"logger": "tensorboard", "arguments": {"directory": "../board"}},
        {"logger": "wandb", "arguments": {"base_url": "http://127.0.0.1"}},
        {"logger": ["jsonl"]},
        {"logger": "os:system", "arguments": {"command": "true"}},
        {"function": ["a"]},
        ["jsonl"],
        7,
    ],
)
def test_of_a_header_nothing_is_made_that_writes_or_sends_elsewhere(described, tmp_path):
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert rebuild_loggers([described], tmp_path) == []


def test_a_link_out_of_the_run_is_none_into_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "run/out").symlink_to(tmp_path / "other")
    described = {"logger": "jsonl", "arguments": {"path": str(tmp_path / "run/out/log")}}
    with pytest.warns(UserWarning, match="outside of the run, and is left out"):
        assert rebuild_loggers([described], tmp_path / "run") == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard"])
def test_a_link_in_the_place_of_a_log_is_refused(name, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "run" / name).symlink_to(tmp_path / "kept")
    with pytest.raises(ValueError, match=f"has '{name}', which is a link"):
        run(tmp_path / "run", [purerl.JsonLines(), purerl.TensorBoard()])
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_log_of_the_run_is_not_written_through_a_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run/logs").symlink_to(tmp_path / "elsewhere")
    loggers = [
        purerl.JsonLines(tmp_path / "run/logs/log"),
        purerl.TensorBoard(tmp_path / "run/logs"),
    ]
    with pytest.warns(UserWarning, match="outside of the run") as warned:
        run(tmp_path / "run", loggers)
    text = " ".join(str(each.message) for each in warned)
    assert "hook JsonLines failed" in text
    assert "hook TensorBoard failed" in text
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_log_that_is_named_elsewhere_may_be_a_link(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    run(tmp_path / "run", [purerl.JsonLines(tmp_path / "link")])
    assert len((tmp_path / "target").read_text().splitlines()) == 6


SECRET = "s3cr3t-0123456789"


@pytest.fixture
def fake_wandb(monkeypatch):
    """What `wandb.init` is given."""
    given = {}
    fake = SimpleNamespace(id="x", log=lambda *args, **kwargs: None, finish=lambda: None)
    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(init=lambda **each: given.update(each) or fake)
    )
    monkeypatch.setattr("purerl.experiment.logging.loggers.require_package", lambda *args: None)
    return given


def test_keys_tokens_and_passwords_are_not_written_down(fake_wandb, tmp_path):
    settings: dict[str, Any] = {
        "project": "mine",
        "settings": {"api_key": SECRET, "nested": [{"password": SECRET}]},
        "config": {"a": 1, "b": [{"AUTH_TOKEN": SECRET, "c": 2}], "key": SECRET},
    }
    run(tmp_path, [purerl.WeightsAndBiases(**settings)])
    assert fake_wandb["settings"] == settings["settings"]
    assert fake_wandb["config"]["a"] == 1
    assert fake_wandb["config"]["b"] == [{"c": 2}]
    assert SECRET not in str(fake_wandb["config"])
    assert "hooks" not in fake_wandb["config"]
    assert fake_wandb["config"]["seeds"] == [0, 1, 2]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "config.json" in written
    assert not any(SECRET.encode() in path.read_bytes() for path in written)


@pytest.mark.parametrize(
    ("told", "known"),
    [("abc_1.x", "abc_1.x"), ("", None), ("../x", None), ("a" * 1000, None), (3, None)],
)
def test_an_id_of_weights_and_biases_is_a_plain_word(told, known, tmp_path):
    write_checked_json(tmp_path / "wandb.json", {"wandb": told})
    assert read_wandb_id(tmp_path / "wandb.json") == known


def test_settings_of_weights_and_biases_are_a_dictionary(fake_wandb):
    with pytest.raises(ValueError, match="config = 3 must be a dictionary"):
        purerl.WeightsAndBiases(config=3)


def test_weights_and_biases_writes_into_the_run_wherever_its_process_is(
    fake_wandb, tmp_path, monkeypatch
):
    """It has a process of its own, of which this one's relative paths are not."""
    monkeypatch.chdir(tmp_path)
    run("here", [purerl.WeightsAndBiases()])
    assert fake_wandb["dir"] == str(tmp_path / "here")


@pytest.mark.slow
def test_json_lines_after_a_kill_and_a_resume_are_those_of_a_run_that_went_through(
    tmp_path, monkeypatch
):
    from interruptions import Interrupted, interrupt_after

    env = Sick(limit=True)  # seeds fail on the way
    how: Any = {"updates_per_chunk": 2, "checkpoint_every": 4, "evaluate_every": 4}
    how |= {"env": env, "seeds": 24}
    result = run(tmp_path / "straight", [purerl.JsonLines(per_seed=True)], **how)
    assert len({*np.asarray(result.states.failed_at).tolist()}) > 2
    with monkeypatch.context() as patch:
        interrupt_after(8, patch)
        with pytest.raises(Interrupted):
            run(tmp_path / "killed", [purerl.JsonLines(per_seed=True)], **how)
    hooks = [purerl.JsonLines(per_seed=True)]
    purerl.resume(tmp_path / "killed", env=env, hooks=hooks, progress=False)
    paths = (tmp_path / name / "metrics.jsonl" for name in ("straight", "killed"))
    straight, killed = map(told_in, paths)
    assert killed == straight
    again = [purerl.JsonLines(tmp_path / "again.jsonl", per_seed=True)]
    purerl.resume(tmp_path / "killed", env=env, hooks=again, progress=False)  # it is finished
    assert told_in(tmp_path / "again.jsonl") == straight


def told_in(path):
    """The records of a log, without what says whose they are."""
    rows = map(json.loads, path.read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in Identity._fields} for row in rows]


def events(path):
    """The scalars of an event file, by name and step, and the step from which it purges."""
    from tensorboardX.proto import event_pb2

    data, values, purged = path.read_bytes(), {}, None
    while data:  # length, its checksum, the event, its checksum
        size = int.from_bytes(data[:8], "little")
        event: Any = event_pb2.Event.FromString(data[12 : 12 + size])  # pyright: ignore
        if event.session_log.status == event_pb2.SessionLog.START:  # pyright: ignore
            purged = event.step
        for value in event.summary.value:
            values[value.tag, event.step] = value.simple_value
        data = data[16 + size :]
    return values, purged


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_writes_event_files(tmp_path, monkeypatch):
    from interruptions import Interrupted, interrupt_after

    with monkeypatch.context() as patch:
        interrupt_after(8, patch)
        with pytest.raises(Interrupted):
            run(tmp_path, [purerl.TensorBoard(per_seed=True)], checkpoint_every=4)
    (first,) = (tmp_path / "tensorboard").glob("events*")
    env = Probe("match", limit=True, length=0)
    time.sleep(1.1)  # a file is named by its second
    result = purerl.resume(
        tmp_path, env=env, hooks=[purerl.TensorBoard(per_seed=True)], progress=False
    )
    (second,) = set((tmp_path / "tensorboard").glob("events*")) - {first}
    before, _ = events(first)
    values, purged = events(second)
    assert purged == 0  # what the first says is not shown a second time
    assert before.items() <= values.items()
    assert {step for _, step in values} == {64, 128, 192, 256, 320, 384}
    assert values["entropy/seed_1", 384] == pytest.approx(float(result.metrics.entropy[1, -1]))


@pytest.mark.slow
def test_weights_and_biases_works_offline_and_goes_on_with_its_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        secret: Any = {"settings": {"api_key": "0123456789" * 4}}
        run(tmp_path / "a", [purerl.WeightsAndBiases(mode="offline", **secret)])
        time.sleep(1.1)  # a folder is named by its second
        config = purerl.vpg(Probe("match", limit=True, length=0), log_every=2, **SIZES)
        longer = config.replace(total_steps=16 * config.env_steps_per_update)
        hooks = [purerl.WeightsAndBiases(mode="offline")]
        purerl.resume(tmp_path / "a", longer, hooks=hooks, force=True, progress=False)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"0123456789" * 4 in path.read_bytes() for path in files)
    known = read_wandb_id(tmp_path / "a/wandb.json")
    written = list(tmp_path.glob("a/wandb/offline-run-*/run-*.wandb"))
    assert [path.name for path in written] == [f"run-{known}.wandb"] * 2
    # wandb writes from a process of its own, which a busy machine may keep waiting.
    until = time.monotonic() + 60
    while not all(b"episode_return" in path.read_bytes() for path in written):
        assert time.monotonic() < until
        time.sleep(0.5)


def test_a_logger_whose_package_is_missing_says_what_to_install(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"wandb is not installed; install purerl\[wandb\]"):
        purerl.WeightsAndBiases()


def test_a_run_that_dies_waits_for_its_hooks_only_so_long(tmp_path, monkeypatch):
    from interruptions import Interrupted, interrupt_after

    monkeypatch.setattr("purerl.experiment.logging.hooks.HOOK_TIMEOUT", 0.5)
    interrupt_after(8, monkeypatch)
    never = threading.Event()
    start = time.monotonic()
    with pytest.warns(UserWarning, match="hook <lambda> has not"), pytest.raises(Interrupted):
        run(tmp_path, [lambda chunk: never.wait(120)])
    assert time.monotonic() - start < 60
    never.set()
