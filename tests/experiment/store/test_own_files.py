"""Nobody's files are lost: a run overwrites and removes what it wrote itself, and nothing else."""

import os
import shutil

import pytest
from directories import TRAIN, contents, put, train_and_stop
from finished import SMALL, train

import purerl
from purerl.experiment.store import files, own_files
from purerl.experiment.store.own_files import require_own_names, require_writable

STRANGE = (
    *("config.json", "metrics.npz", "summary.json", "sweep.json", "learning_curve.png"),
    *("checkpoints/1000/model.bin", "checkpoints/6/manifest.json", "checkpoints/.8.part/a"),
    *("records/000000000-000000002.npz", "checkpoints", "records"),
)
HARMLESS = (".hydra/config.yaml", "slurm-1.out", "records/table.csv", "checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    return train_and_stop(tmp_path_factory.mktemp("died") / "run")


@pytest.fixture
def stopped(died, tmp_path):
    """A run that died at update 6 of 6, with checkpoints of updates 2 and 4."""
    return shutil.copytree(died, tmp_path / "run")


def refused(call, *args):
    """The one line that a command is refused with."""
    code, out, err = call(*args)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.mark.parametrize("name", STRANGE)
def test_what_lies_where_a_run_writes_is_named_and_kept(name, tmp_path, call):
    put(tmp_path / "mine" / name)
    before = sorted(tmp_path.rglob("*"))
    line = refused(call, *TRAIN, "--directory", tmp_path / "mine")
    assert "/".join(name.split("/")[:2]) in line
    assert sorted(tmp_path.rglob("*")) == before
    assert contents(tmp_path) == {f"mine/{name}": b"somebody's"}


def test_an_environments_folder_of_logs_is_kept_too(tmp_path, call):
    for logger, name in (("jsonl", "metrics.jsonl"), ("tensorboard", "tensorboard/events.out")):
        put(tmp_path / logger / name)
        where = ("--directory", tmp_path / logger)
        assert repr(name.split("/")[0]) in refused(call, *TRAIN, *where, "--log", logger)
        require_own_names(tmp_path / logger)  # without that logger it is in nobody's way


def test_a_sweep_refuses_them_too(tmp_path, call):
    put(tmp_path / "sweep.png")
    options = ("--values", "discount=0.9,0.99", "--directory", tmp_path)
    assert "'sweep.png'" in refused(call, "sweep", *TRAIN[1:], *options)
    assert contents(tmp_path) == {"sweep.png": b"somebody's"}


def test_other_files_may_lie_in_a_directory_and_stay(tmp_path, monkeypatch):
    for name in HARMLESS:
        put(tmp_path / name)
    train_and_stop(tmp_path)
    put(tmp_path / "checkpoints/2/notes.txt")
    with pytest.warns(UserWarning, match="schedule now runs"):
        purerl.resume(tmp_path, total_steps=4 * 8 * 12, progress=False)
    found = contents(tmp_path)
    assert {found[name] for name in (*HARMLESS, "checkpoints/2/notes.txt")} == {b"somebody's"}
    assert "summary.json" in found


@pytest.mark.parametrize(
    "name", ["records", "checkpoints", "metrics.npz", "config.json", ".lock", "checkpoints/6"]
)
def test_no_link_is_followed_out_of_a_directory(name, tmp_path, call):
    target = tmp_path / "documents"
    put(target / "000000000-000000002.npz")
    put(target / "6/model.bin")
    if "." in name:
        target = put(tmp_path / "documents/notes.txt")
    before = contents(tmp_path)
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    reason = "has a config.json that is" if name == "config.json" else f"{name!r}, which is a l"
    assert reason in refused(call, *TRAIN, "--directory", tmp_path / "run")
    assert link.readlink() == target
    link.unlink()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["records", "checkpoints", "checkpoints/2", "metrics.npz"])
def test_a_run_with_links_inside_does_not_go_on_through_them(name, stopped, tmp_path, call):
    outside = tmp_path / "outside"
    if (stopped / name).exists():
        shutil.move(stopped / name, outside)
    else:
        put(outside)
    put(tmp_path / "outside_too/notes.txt")
    (stopped / name).symlink_to(outside)
    before = contents(tmp_path)
    assert "is a link" in refused(call, "resume", stopped)
    assert contents(tmp_path) == before


def test_a_run_directory_may_be_a_link_itself(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    train(tmp_path / "runs/vpg")
    (tmp_path / "other").symlink_to(tmp_path / "scratch/vpg")
    assert purerl.resume(tmp_path / "other", progress=False).updates == 6


def test_a_temporary_file_is_new_and_no_link(tmp_path, monkeypatch):
    kept = put(tmp_path / "kept")
    (tmp_path / "file.part").symlink_to(kept)
    (tmp_path / "file").symlink_to(kept)
    files.write_json(tmp_path / "file", {})
    assert not (tmp_path / "file").is_symlink()
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    (tmp_path / ".file.00000000.part").symlink_to(kept)
    with pytest.raises(FileExistsError):
        files.write_json(tmp_path / "file", {})
    assert kept.read_text() == "somebody's"


def test_files_are_as_readable_as_a_user_asks(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "file", {})
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_what_a_kill_leaves_is_removed_and_nothing_else(stopped, call):
    ours = (
        ".metrics.npz.0123abcd.part",
        "records/.000000004-000000006.npz.0123abcd.part",
        "checkpoints/.6.part/states.npz",
        "checkpoints/4/.manifest.json.0123abcd.part",
    )
    for name in ours:
        put(stopped / name, "cut o")
    others = (".notes.txt.0123abcd.part", "records/.table.csv.0123abcd.part", "records/a.npz")
    for name in others:
        put(stopped / name)
    code, _, err = call("resume", stopped)
    assert code == 0, err
    left = contents(stopped)
    assert not {*ours[:3]} & {*left}
    assert {*others} <= {*left}


def test_records_and_checkpoints_go_by_name_and_content(stopped):
    put(stopped / "records/000000004-000000006.npz")
    put(stopped / "checkpoints/6/model.bin")
    for updates in (4, 0):
        own_files.discard_after(stopped, updates)
        with pytest.raises(ValueError, match="'checkpoints/6', which purerl did not write"):
            require_own_names(stopped)
    found = contents(stopped)
    assert found.pop("config.json")
    assert found == {
        "records/000000004-000000006.npz": b"somebody's",
        "checkpoints/6/model.bin": b"somebody's",
    }


@pytest.mark.parametrize(
    "args",
    [
        ("evaluate", "RUN", "--output", "RUN/config.json"),
        ("evaluate", "RUN", "--output", "LINK/metrics.npz"),
        ("compare", "RUN", "--output", "RUN/learning_curve.png"),
        ("export", "RUN", "--metrics", "RUN/records/table.csv"),
        ("export", "RUN", "--scores", "RUN/metrics.npz"),
        ("export", "RUN", "--seed", "1", "--output", "RUN/checkpoints/6/states.npz"),
        ("render", "RUN", "--output", "RUN/checkpoints/a.gif"),
        ("plan", "--target", "h100", "--json", "RUN/summary.json"),
    ],
)
def test_no_output_overwrites_a_runs_own_file(args, finished, tmp_path, call):
    (tmp_path / "LINK").symlink_to(finished)
    before = contents(finished)
    words = [word.replace("RUN", str(finished)) for word in args]
    words = [word.replace("LINK", str(tmp_path / "LINK")) for word in words]
    assert "cannot be written: it is a run's own file; name another" in refused(call, *words)
    assert contents(finished) == before


def test_from_python_they_are_kept_too_and_other_names_are_free(finished, tmp_path):
    policy, config = purerl.load_policy(finished, 1), purerl.preset("CartPole-v1", "vpg", **SMALL)
    with pytest.raises(ValueError, match="a run's own file"):
        purerl.save_policy(finished / "metrics.npz", policy, config)
    require_writable("output", finished / "evaluation_greedy.json")
    require_writable("output", tmp_path / "metrics.npz")  # of no run


@pytest.mark.parametrize(
    "args",
    [
        (*TRAIN, "--directory", ""),
        ("sweep", "--values", "discount=0.9,0.99", "--directory", ""),
        ("resume", ""),
        ("evaluate", ""),
        ("compare", "", "--output", "a.png"),
        ("export", "", "--seed", "1"),
        ("render", ""),
    ],
)
def test_an_empty_name_is_no_directory(args, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    assert "= '' is no path; name a directory" in refused(call, *args)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_a_pipe_is_refused_at_once(finished, tmp_path, call):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / ".lock").unlink()
    os.mkfifo(run / ".lock")
    assert ".lock is no file" in refused(call, "resume", run, "--total-steps", 4 * 8 * 12)
    for args in (("evaluate", run, "--episodes", "2"), ("resume", run)):  # they need no lock
        code, _, err = call(*args)
        assert code == 0, err
