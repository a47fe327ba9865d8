"""Files that are none, or that are more than they say: one line, at once."""

import os
import shutil
import time

import numpy as np
import pytest

from purerl.experiment.store import files
from purerl.experiment.store.files import CorruptFileError, open_regular, read_checked_json


@pytest.fixture
def at_once():
    """Fails where a test waits for something that never comes."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("name", [".lock", "config.json", "metrics.npz", "summary.json"])
def test_a_pipe_holds_up_no_command(name, finished, tmp_path, call, at_once):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    for args in (
        ["evaluate", run, "--episodes", 2],
        ["compare", run, "--output", tmp_path / "figure.png"],
        ["export", run, "--metrics", tmp_path / "table.csv"],
    ):
        code, _, err = call(*args)
        assert code in (0, 1, 2)
        assert "Traceback" not in err
        assert code == 0 or err.count("\n") == 1, err


def test_a_pipe_in_a_checkpoint_is_damage(finished, tmp_path, call, at_once):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (data,) = run.glob("checkpoints/*/states.npz")
    data.unlink()
    os.mkfifo(data)
    code, _, err = call("evaluate", run, "--episodes", 2)
    assert code == 2, err


def test_what_is_no_file_is_not_opened(tmp_path, at_once):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        open_regular(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(OSError, match="no regular file"):
        open_regular(tmp_path / "/dev/zero")


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**6, "[]", "3", '"' + "9" * 10])
def test_json_of_another_shape_is_corrupt(text, tmp_path, at_once):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CorruptFileError):
        read_checked_json(tmp_path / "config.json")


def test_json_of_a_terabyte_is_corrupt(tmp_path, at_once):
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(CorruptFileError):
        read_checked_json(tmp_path / "config.json")


def test_arrays_that_are_larger_than_their_file_are_refused(tmp_path):
    files.write_arrays(tmp_path / "sound.npz", {"a": np.zeros(10**6)})
    assert files.read_arrays(tmp_path / "sound.npz")["a"].shape == (10**6,)
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10**6))
    with pytest.raises(ValueError, match="its arrays are larger than itself"):
        files.read_arrays(tmp_path / "bomb.npz")
