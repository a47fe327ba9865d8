"""How the command line ends: its line, its exit code, and which process says it."""

import os

import jax
import pytest

from purerl.cli import commands
from purerl.cli.main import main
from purerl.experiment.hosts import processes
from purerl.experiment.hosts.processes import mark_raised_by_all
from purerl.experiment.hosts.stopping import LostProcessError, RunError, Stopped

ENDINGS = {
    "bad input": (lambda: ValueError("x = 1 must be 2."), 2, "x = 1 must be 2."),
    "a file": (lambda: OSError(13, "Permission denied", "a.txt"), 2, "a.txt cannot be read or wri"),
    "a run that cannot go on": (lambda: RunError("the disk is full"), 1, "the disk is full"),
    "a lost process": (lambda: LostProcessError("another has died"), 1, "another has died"),
    "a signal": (lambda: Stopped("stopped at update 2", 15), 143, "stopped at update 2"),
}


@pytest.fixture
def end(monkeypatch, capsys):
    """Run a command that raises: its exit code, what is said, and whether the end is at once."""
    at_once = []

    def exits(code):
        at_once.append(code)
        raise SystemExit(code)

    monkeypatch.setattr("purerl.experiment.hosts.startup.use_all_cores", lambda: None)
    monkeypatch.setattr("purerl.experiment.hosts.startup.use_compilation_cache", lambda: None)
    monkeypatch.setattr("warnings.showwarning", None)
    monkeypatch.syspath_prepend("")
    monkeypatch.setattr(os, "_exit", exits)

    def run(error):
        def fail(command, began):
            raise error

        monkeypatch.setattr(commands, "execute", fail)
        with pytest.raises(SystemExit) as ended:
            main(["envs"])
        return ended.value.code, capsys.readouterr().err, bool(at_once)

    return run


@pytest.mark.parametrize(("make", "code", "says"), ENDINGS.values(), ids=list(ENDINGS))
def test_an_error_ends_with_its_line_and_its_code(make, code, says, end):
    assert end(make())[0] == code
    ended, said, at_once = end(make())
    assert (ended, at_once) == (code, False)
    assert said.startswith(f"purerl: {says}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("make", "code", "says"), ENDINGS.values(), ids=list(ENDINGS))
@pytest.mark.parametrize("is_main", [True, False])
@pytest.mark.parametrize("by_all", [True, False])
def test_of_several_processes_one_says_what_all_raise(
    make, code, says, is_main, by_all, end, monkeypatch
):
    monkeypatch.setattr(processes, "is_main_process", lambda: is_main)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    error = mark_raised_by_all(make()) if by_all else make()
    ended, said, at_once = end(error)
    assert ended == code
    assert (says in said) is (is_main or not by_all)
    # The others come to know by that, where they have not raised it too.
    assert at_once is (isinstance(error, RunError) and not by_all)


@pytest.mark.parametrize("error", [ValueError("a\nb"), OSError("of a library"), KeyError("x")])
def test_a_bug_shows_its_traceback(error, end, monkeypatch):
    with pytest.raises(type(error)):
        end(error)
