"""The commands that read runs: what they write, and bad input in one line."""

import json
import os
import shutil

import numpy as np
import pytest
from commands import run_purerl
from finished import altered

from purerl.experiment.store import files
from purerl.experiment.store.own_files import require_writable


@pytest.fixture
def copy(finished, tmp_path):
    """A finished run that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("compare", "RUN", "--output", "no/where.png"), "output"),
        (("evaluate", "RUN", "--output", "no/where.json"), "output"),
        (("export", "RUN", "--metrics", "no/where.csv"), "metrics"),
        (("export", "RUN", "--scores", "no/where.npz"), "scores"),
        (("export", "RUN", "--seed", "1", "--output", "no/where.npz"), "output"),
        (("render", "RUN", "--output", "no/where.gif"), "output"),
        (("render", "RUN", "--output", "folder.gif"), "output"),
    ],
)
def test_a_file_that_cannot_be_written_ends_with_one_line_and_exit_code_2(
    command, name, finished, tmp_path, monkeypatch, call
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.gif").mkdir()
    code, out, err = call(*(finished if each == "RUN" else each for each in command))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"purerl: --{name} = '{command[-1]}' cannot be written: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's place")
def test_a_directory_without_write_permission_is_refused_before_anything_is_played(tmp_path):
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents:
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ValueError, match=r"cannot be written: Permission denied; name another"):
            require_writable("output", tmp_path / "evaluation_greedy.json")
    finally:
        os.seteuid(0)


def test_a_system_error_ends_with_one_line_that_names_the_file(finished, tmp_path, call):
    def full(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        files.write_atomically(tmp_path / "file", full)
    assert error.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.iterdir())
    (tmp_path / "metrics.npz").mkdir()
    for name in ("config.json", "summary.json"):
        shutil.copy(finished / name, tmp_path / name)
    code, _, err = call("compare", tmp_path, "--output", tmp_path / "figure.png")
    assert code == 2
    assert err == f"purerl: {tmp_path}/metrics.npz cannot be read or written: Is a directory\n"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("export", "RUN"), "export what?"),
        (("export", "RUN", "RUN", "--seed", "1"), "give one for --seed"),
        (("export", "RUN", "--output", "a.npz", "--scores", "b.npz"), "output has no effect"),
        (("render", "RUN", "--seed", "77"), "seed = 77 is not in this run"),
        (("render", "RUN", "--episode", "-1"), "episode = -1 must be from 0"),
        (("evaluate", "RUN", "--max-steps", "0"), "--max-steps = 0 must be"),
        (("evaluate", "RUN", "--episodes", "0"), "episodes = 0 must be"),
        (("compare", "RUN", "--output", "figure.xyz"), "must end in .png, .pdf or .svg"),
        (("compare", "RUN", "RUN"), "is named twice"),
        (("compare", "nowhere"), "'nowhere' is not there"),
        (("evaluate", "nowhere"), "is not there; name the directory of a run"),
        (("export", "nowhere", "--seed", "1"), "is not there; name the directory of a run"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(
    command, line, finished, tmp_path, monkeypatch, call
):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*(finished if each == "RUN" else each for each in command))
    assert code == 2
    assert line in err
    assert err.startswith("purerl: ")
    assert err.count("\n") == 1


def test_what_the_commands_write(copy, tmp_path, call):
    other = altered(copy, tmp_path / "ppo", algo="ppo", seed_2=None)
    code, out, err = call("compare", copy, other, "--output", tmp_path / "figure.pdf")
    assert (code, err) == (0, "")
    assert "P(beats first)" in out
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    code, out, err = call("evaluate", copy, "--episodes", 8, "--sampled", "--seeds", 3, 1)
    assert (code, err) == (0, "")
    assert "sampled return, IQM over seeds" in out
    assert "8 episodes each · update 6" in out
    written = json.loads((copy / "evaluation_sampled.json").read_text())
    assert written["episodes"] == 8
    assert list(written["seeds"]) == ["3", "1"]
    scores = tmp_path / "scores.npz"
    code, _, err = call("export", copy, other, "--scores", scores)
    assert code == 0
    assert err.count("\n") == 1
    assert err.startswith(f"purerl: warning: {other}: seeds without a return: 2; ")
    assert np.isnan(np.load(scores)["ppo"][2, 0])


@pytest.mark.slow
def test_the_command_line_on_runs_in_a_process_of_its_own(copy, tmp_path):
    done = run_purerl("evaluate", str(copy), "--episodes", "8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "greedy return, IQM over seeds" in done.stdout
    for args, said in (
        (("resume", str(tmp_path)), "holds no run"),
        (("train", "--memory-limit", "much"), "write 500MB or 1.5GB"),
    ):
        done = run_purerl(*args, cwd=tmp_path)
        assert done.returncode == 2, (args, done.stderr)
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_nothing_to_export_from_is_refused_in_one_line(call):
    assert call("export", "--seed", "1")[::2] == (
        2,
        "purerl: runs must name at least one run directory.\n",
    )
