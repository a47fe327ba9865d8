"""A finished run is read from what is left of it, never trained anew unasked, and advice works."""

import shutil

import numpy as np
import pytest
from directories import EVERY, TRAIN, advised, contents, train_and_stop
from finished import SMALL, train
from trees import assert_bitwise_equal

import purerl
from purerl.experiment.store import files
from purerl.experiment.store.finished_run import read_run
from purerl.experiment.store.identity import FORMAT, MARK, Identity


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with checkpoints of updates 4 and 6, and three segments of records."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    train(directory, **EVERY)
    return directory


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def damage(path, how="cut"):
    if how == "removed" and path.is_dir():
        return shutil.rmtree(path)
    if how == "removed":
        return path.unlink()
    if how == "a folder":
        path.unlink()
        return path.mkdir()
    data = path.read_bytes()
    changed = {"cut": data[: len(data) // 2], "emptied": b"", "not its own": b"m\n"}
    return path.write_bytes(changed[how])


def refused(call, *args):
    code, _, err = call(*args)
    assert code == 2, err
    return err.splitlines()[-1]


def followed(call, line, *more):
    """Do what a line advises."""
    code, _, err = call(*advised(line), *more)
    assert code == 0, err


def assert_same(directory, other):
    ours, theirs = (files.read_arrays(each / "metrics.npz") for each in (directory, other))
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {MARK}:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_finished_run_without_its_checkpoints_is_kept_and_trained_anew_when_asked(
    run, whole, tmp_path, call
):
    damage(run / "checkpoints", "removed")
    before = contents(run)
    config = purerl.preset("CartPole-v1", "vpg", **SMALL)
    for line in (
        refused(call, "resume", run),
        refused(call, "resume", run, "--total-steps", 4 * 8 * 12),
        refused(call, "evaluate", run),
        refused(call, "export", run, "--seed", "1"),
    ):
        assert advised(line) == ["resume", str(run), "--force"]
        assert contents(run) == before
    with pytest.raises(ValueError, match="has a result but no checkpoint") as error:
        purerl.run(config, 4, run, **EVERY, evaluation_episodes=2, target_return=20.0)
    assert contents(run) == before
    assert call("compare", run, "--output", tmp_path / "a.png")[0] == 0
    assert call("export", run, "--metrics", tmp_path / "a.csv")[0] == 0
    assert f"purerl.resume({str(run)!r}, force=True) trains it anew" in str(error.value)
    purerl.resume(run, force=True, progress=False)
    assert_same(run, whole)
    assert call("evaluate", run, "--episodes", 2)[0] == 0


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_a_finished_run_without_its_last_checkpoint_is_not_trained_unasked(how, run, whole, call):
    damage(run / "checkpoints/6" if how == "removed" else run / "checkpoints/6/states.npz", how)
    before = contents(run)
    line = refused(call, "resume", run)
    assert "is finished, but has no sound checkpoint after update 4 of 6" in line
    assert contents(run) == before
    followed(call, line)
    assert_same(run, whole)


@pytest.mark.parametrize("how", ["removed", "cut", "emptied"])
def test_records_that_are_lost_are_written_again_from_the_metrics(how, run, whole, call):
    damage(run / "records/000000002-000000004.npz", how)
    with pytest.warns(UserWarning, match="the records are written again from metrics.npz"):
        again = purerl.resume(run, progress=False)
    straight = purerl.resume(whole, progress=False)
    for name in ("states", "metrics", "evaluations"):
        assert_bitwise_equal(getattr(again, name), getattr(straight, name))
    code, _, err = call("resume", run)
    assert (code, "warning" in err) == (0, False)
    with pytest.warns(UserWarning, match="schedule now runs"):
        longer = purerl.resume(run, total_steps=4 * 8 * 12, progress=False)
    assert longer.resumed_at == 6
    np.testing.assert_array_equal(longer.metrics.entropy[:, :6], straight.metrics.entropy)


@pytest.mark.parametrize("how", ["removed", "cut", "emptied", "not its own"])
def test_metrics_that_are_lost_are_read_from_the_records(how, run, whole, tmp_path, call):
    damage(run / "metrics.npz", how)
    with pytest.warns(UserWarning, match=r"metrics.npz is missing or damaged; .* read") as warned:
        ours = read_run(run).arrays
    theirs = read_run(whole).arrays
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert call("compare", run, "--output", tmp_path / "a.png")[0] == 0
    if how == "not its own":  # then it stays, and is named
        line = refused(call, *advised(str(warned[0].message)))
        assert "'metrics.npz', which purerl did not write" in line
        (run / "metrics.npz").rename(tmp_path / "moved")
    followed(call, str(warned[0].message))
    assert_same(run, whole)
    assert files.read_checked_json(run / "summary.json") == (
        files.read_checked_json(whole / "summary.json")
    )


@pytest.mark.parametrize("how", ["removed", "cut", "emptied", "not its own", "a folder"])
def test_a_header_that_is_lost_is_read_from_a_checkpoint(how, run, whole, tmp_path, call):
    damage(run / "config.json", how)
    with pytest.warns(UserWarning, match="config.json is damaged; the copy in the checkpoint"):
        assert read_run(run).env == "CartPole-v1"
    for args in (
        ("compare", run, "--output", tmp_path / "a.png"),
        ("export", run, "--scores", tmp_path / "a.npz"),
        ("evaluate", run, "--episodes", 2),
        ("resume", run),
    ):
        code, _, err = call(*args)
        assert code == 0, err
        assert "config.json is damaged; the copy in the checkpoint is used" in err
    assert_same(run, whole)


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_a_summary_that_is_lost_is_written_again_as_advised(how, run, whole, tmp_path, call):
    damage(run / "summary.json", how)
    line = refused(call, "compare", run, "--output", tmp_path / "a.png")
    followed(call, line)
    assert call("compare", run, "--output", tmp_path / "a.png")[0] == 0
    names = ("seeds", "episode_return", "num_updates")
    ours, theirs = (files.read_checked_json(each / "summary.json") for each in (run, whole))
    assert [ours[name] for name in names] == [theirs[name] for name in names]


def test_with_metrics_and_records_lost_the_advice_leads_to_the_flag(run, whole, tmp_path, call):
    damage(run / "metrics.npz")
    damage(run / "records/000000002-000000004.npz")
    line = refused(call, "compare", run, "--output", tmp_path / "a.png")
    assert "metrics.npz' is damaged; write it again: purerl resume" in line
    line = refused(call, *advised(line))
    assert advised(line) == ["resume", str(run), "--force"]
    followed(call, line)
    assert_same(run, whole)


def test_what_is_not_finished_goes_on_as_advised(tmp_path, whole, call):
    run = train_and_stop(tmp_path / "run")
    for args in (
        ("compare", run, "--output", tmp_path / "a.png"),
        ("export", run, "--metrics", tmp_path / "a.csv"),
    ):
        line = refused(call, *args)
        assert advised(line) == ["resume", str(run)]
    followed(call, line)
    assert_same(run, whole)


def test_what_has_no_checkpoint_yet_goes_on_as_advised(tmp_path, whole, call):
    run = train_and_stop(tmp_path / "run", updates=0)
    line = refused(call, "evaluate", run)
    assert "holds no checkpoint; go on with it" in line
    followed(call, line)
    assert_same(run, whole)


def test_where_there_is_no_run_one_is_trained_as_advised(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    line = refused(call, "evaluate", "a [b]")
    assert advised(line) == ["train", "--directory", "a [b]"]
    followed(call, line, *TRAIN[1:])
    assert call("evaluate", "a [b]", "--episodes", 2)[0] == 0


def test_a_sweep_has_no_checkpoints_and_says_so(tmp_path, call):
    header = {**Identity.new()._asdict(), "kind": "sweep"}
    files.write_checked_json(tmp_path / "config.json", header)
    for args in (("evaluate", tmp_path), ("resume", tmp_path), ("compare", tmp_path)):
        assert "holds a sweep; name the directory of a run" in refused(call, *args)


def test_the_states_of_before_are_refused_in_a_line(run, call):
    header = files.read_checked_json(run / "config.json")
    files.write_checked_json(run / "config.json", header | {"format": 3})
    before = contents(run)
    both = (
        f"was saved by another version of purerl, in format 3; this version reads format {FORMAT}"
    )
    for args in (("resume", run), ("evaluate", run), ("compare", run)):
        assert both in refused(call, *args)
    assert contents(run) == before
