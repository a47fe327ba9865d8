"""A terminal that is full, gone, closed or of another encoding."""

import io
import os
import subprocess
import sys
from typing import Any

import pytest
from commands import ROOT
from rich.console import Console

from purerl.experiment.hosts.terminal import Terminal


def full():
    return open("/dev/full", "w")


def gone():
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def closed():
    stream = open(os.devnull, "w")  # noqa: SIM115
    stream.close()
    return stream


@pytest.mark.parametrize("make", [full, gone, closed, lambda: None])
def test_what_a_terminal_does_not_take_is_lost(make):
    stream = make()
    terminal: Any = Terminal(stream)
    assert terminal.write("é · ━\n" * 10_000) == 60_000
    terminal.flush()
    assert not terminal.isatty()
    Console(file=terminal).print("[bold]text")
    if stream is not None:
        stream.close()  # nothing is left in a buffer, which would fail here


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_letter_that_an_encoding_lacks_is_a_question_mark(encoding, tmp_path):
    with open(tmp_path / "file", "w", encoding=encoding) as stream:
        stream.write("first ")
        Terminal(stream).write("é·━")
    expected = {"ascii": "???", "latin-1": "é·?", "utf-8": "é·━"}[encoding]
    assert (tmp_path / "file").read_text(encoding) == f"first {expected}"


def test_a_stream_without_a_file_is_written_to():
    stream = io.StringIO()
    Terminal(stream).write("é")
    assert stream.getvalue() == "é"


def test_a_closed_stream_gives_its_number_to_no_file_of_the_run():
    code = """
import os
from purerl.experiment.hosts.terminal import forgiving_terminal
with forgiving_terminal():
    assert os.open(os.devnull, os.O_RDONLY) > 2
    print("lost")
"""
    command = f'exec "{sys.executable}" -c "$0" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", command, code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0
