"""Run directories: what lies in them, and the commands that a line advises."""

import re
import shlex
from typing import Any

import pytest
from finished import train
from interruptions import Interrupted, interrupt_after

# The run of `finished.train` on the command line.
TRAIN = (
    *("train", "--num-envs", "4", "--rollout-length", "8", "--total-steps", str(4 * 8 * 6)),
    *("--hidden", "8", "--seeds", "4", "--evaluation-episodes", "2"),
)
EVERY: Any = {"evaluate_every": 2, "checkpoint_every": 2, "updates_per_chunk": 2}


def train_and_stop(directory, updates=4, **options):
    """A run of `finished.train` that dies after so many of its 6 updates."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(updates, patch)
        with pytest.raises(Interrupted):
            train(directory, **(EVERY | options))
    return directory


def contents(directory):
    """Every file by its content, every link by where it leads, without the lock."""
    return {
        str(path.relative_to(directory)): path.readlink()
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.name != ".lock" and (path.is_symlink() or path.is_file())
    }


def put(path, text="somebody's"):
    """A file of somebody's, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def advised(line):
    """The arguments of the last command that a line advises."""
    word = r"(?:'[^']*'|\"[^\"]*\"|[^\s;,'\"])+"
    found = re.findall(rf"purerl ((?:resume|train --directory) {word}(?: --\w+)*)", line)
    assert found, line
    return shlex.split(found[-1])
