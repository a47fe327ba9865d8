"""What is refused, or read where nothing can be written, for what is really there."""

import errno
import shutil

import pytest
from directories import TRAIN, advised, contents, put, train_and_stop

import purerl
from purerl.experiment.hosts import locks
from purerl.experiment.play.run_evaluation import evaluate_run
from purerl.experiment.report.comparison import compare_runs
from purerl.experiment.store import files, own_files
from purerl.experiment.store.directory import Lock
from purerl.experiment.store.files import write_checked_json
from purerl.experiment.store.finished_run import read_run
from purerl.experiment.store.identity import Identity


def refused(call, *args):
    """The one line that a command is refused with."""
    code, _, err = call(*args)
    assert (code, err.count("\n")) == (2, 1), err
    return err


def test_a_name_that_is_too_long_is_too_long(tmp_path, call):
    deep = "/".join(["a" * 200] * 20)
    for args in ((*TRAIN, "--directory", tmp_path / deep), ("resume", tmp_path / deep)):
        assert "is a path of more than 3968 bytes; name a directory" in refused(call, *args)
    with pytest.raises(FileNotFoundError):  # a file system may allow less
        files.read_checked_json(tmp_path / ("a" * 300))


@pytest.mark.parametrize("name", ["summary.json", "metrics.npz"])
def test_a_result_that_is_nobodys_finishes_nothing(name, tmp_path, call):
    run = train_and_stop(tmp_path / "run", updates=2)
    put(run / name, '{"accuracy": 1.0}')
    line = refused(call, *TRAIN, "--directory", run)
    assert f"has {name!r}, which purerl did not write" in line
    shutil.rmtree(run / "checkpoints")
    assert "finished" not in refused(call, *TRAIN, "--directory", run)
    assert (run / name).read_text() == '{"accuracy": 1.0}'


def test_runs_are_named(call):
    assert "runs must name at least one run directory" in refused(call, "compare")
    with pytest.raises(ValueError, match="runs must name at least one"):
        compare_runs([])


@pytest.mark.parametrize("name", ["²", "٣", "1.0", "007", "-1", "1 "])
def test_a_folder_that_has_no_number_is_no_checkpoint(name, finished, tmp_path, call):
    run = shutil.copytree(finished, tmp_path / "run")
    put(run / "checkpoints" / name / "a")
    put(run / "records" / f"{name}.npz")
    for args in (("resume", run), ("evaluate", run, "--episodes", 2)):
        code, _, err = call(*args)
        assert (code, "skipped" in err) == (0, False), err
    assert (run / "checkpoints" / name / "a").read_text() == "somebody's"


def test_a_sweep_a_run_and_a_foreign_directory_are_told_apart(tmp_path, call):
    sweep, foreign = tmp_path / "sweep", tmp_path / "foreign"
    for directory in (sweep, foreign):
        directory.mkdir()
    write_checked_json(sweep / "config.json", {**Identity.new()._asdict(), "kind": "sweep"})
    put(foreign / "config.json", '{"model_type": "gpt2"}')
    put(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    for name, reason in {
        "sweep": "holds a sweep; name the directory of a run",
        "foreign": "config.json' is damaged or not purerl's, and no checkpoint has a copy",
        "empty": "holds no run; name the directory of a run, or start one",
        "file": "is no directory; name the directory of a run",
        "nowhere": "is not there; name the directory of a run, or start one",
    }.items():
        for command in ("resume", "evaluate", "compare", "render"):
            assert reason in refused(call, command, tmp_path / name), (name, command)
    assert "has a config.json that is damaged or not purerl's; move that" in refused(
        call, *TRAIN, "--directory", foreign
    )
    assert "holds another sweep" in refused(call, *TRAIN, "--directory", sweep)
    assert advised(refused(call, "resume", tmp_path / "empty"))[0] == "train"
    assert not list((tmp_path / "empty").iterdir())  # not even a lock


@pytest.fixture
def read_only(finished, tmp_path, monkeypatch):
    """A colleague's run, in which nothing can be written."""
    run = shutil.copytree(finished, tmp_path / "run")
    (run / ".lock").unlink()

    def refuse(function):
        def write(path=None, *args, **how):
            if str(how.get("dir", path)).startswith(str(run)):
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return function(path, *args, **how) if path is not None else function(**how)

        return write

    monkeypatch.setattr(files, "write_atomically", refuse(files.write_atomically))
    monkeypatch.setattr(locks, "_open", refuse(locks._open))
    monkeypatch.setattr(
        own_files.tempfile, "TemporaryFile", refuse(own_files.tempfile.TemporaryFile)
    )
    return run


def test_what_is_finished_is_read_where_nothing_can_be_written(read_only, tmp_path, call):
    before = contents(read_only)
    assert purerl.resume(read_only, progress=False).updates == 6
    assert evaluate_run(read_only, episodes=2).updates == 6
    assert read_run(read_only).env == "CartPole-v1"
    assert purerl.load_policy(read_only, 1) is not None
    for args in (
        ("resume", read_only),
        ("evaluate", read_only, "--episodes", 2),
        ("compare", read_only, "--output", tmp_path / "a.png"),
        ("export", read_only, "--seed", 1, "--output", tmp_path / "policy.npz"),
    ):
        code, _, err = call(*args)
        assert code == 0, err
    assert "the evaluation is shown, and not kept: output" in call("evaluate", read_only)[2]
    line = refused(call, "resume", read_only, "--total-steps", 4 * 8 * 12)
    assert "cannot be locked: Read-only file system; name another" in line
    assert contents(read_only) == before
    assert not (read_only / ".lock").exists()


def test_what_is_finished_is_loaded_while_another_process_holds_it(finished, tmp_path, call):
    run = shutil.copytree(finished, tmp_path / "run")
    with Lock(run):
        assert purerl.resume(run, progress=False).updates == 6
        assert "in use by another run" in refused(call, "resume", run, "--total-steps", 4 * 8 * 12)
