"""What is printed of a checkpoint that cannot be written: one line, by who runs it."""

import logging
import sys
import threading
import types

import pytest

from purerl.experiment.hosts import processes
from purerl.experiment.hosts.stopping import LostProcessError, RunError
from purerl.experiment.store import checkpoint_writer, orbax


def in_a_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


@pytest.fixture
def printed(monkeypatch):
    """The errors that Python has printed."""
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: seen.append(error))
    monkeypatch.setattr(sys, "unraisablehook", lambda told: seen.append(told.exc_value))
    return seen


def print_both(error):
    sys.excepthook(type(error), error, None)
    sys.unraisablehook(types.SimpleNamespace(exc_value=error))  # pyright: ignore[reportArgumentType]


def test_writes_that_come_back_after_a_failure_are_not_printed_then_nor_later(printed):
    late, other = RuntimeError("Event loop is closed"), RuntimeError("something else")

    @orbax.quiet_orbax()
    def fail():
        in_a_thread(print_both, late)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    in_a_thread(print_both, late)
    assert printed == []
    in_a_thread(print_both, other)
    assert printed == [other, other]
    print_both(late)  # in the main thread it is somebody else's
    assert printed == [other, other, late, late]


def test_where_nothing_fails_the_hooks_are_as_before(printed):
    before = sys.excepthook, sys.unraisablehook
    with orbax.quiet_orbax():
        assert sys.excepthook != before[0]
    assert (sys.excepthook, sys.unraisablehook) == before


def test_writes_that_fail_with_nobody_to_tell_are_not_logged_after_a_failure(caplog):
    logging.getLogger("asyncio").removeFilter(orbax._is_news)  # of a failure in another test

    def log(message):
        error = ValueError(message)
        logging.getLogger("asyncio").error("never retrieved", exc_info=error)

    with orbax.quiet_orbax():
        pass
    log("No space left on device")
    assert len(caplog.records) == 1

    @orbax.quiet_orbax()
    def fail():
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    with orbax.quiet_orbax():  # as of closing, which changes nothing of that
        pass
    log("No space left on device")
    assert len(caplog.records) == 1
    log("something else")
    assert len(caplog.records) == 2
    logging.getLogger("asyncio").removeFilter(orbax._is_news)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "/shared/nccl-test/a"), "the disk is full"),
        (OSError(13, "Permission denied", "/shared/nccl-test/a"), "Permission denied"),
        (ValueError("Error writing /shared/gloo/a: not allowed"), "not allowed"),
        (ValueError("[external/gloo/pair.cc:5] Connection closed by peer"), "another process has"),
        (RuntimeError("Barrier failed. Id: a/b"), "another process has"),
    ],
)
def test_a_write_that_fails_is_no_death_of_another_process(error, says, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "is_multi_process", lambda: True)
    writer = checkpoint_writer.CheckpointWriter(tmp_path, {}, 0)
    with pytest.raises(RunError) as failed, writer._explaining_failure():
        raise error
    assert says in str(failed.value)
    assert isinstance(failed.value, LostProcessError) == (says == "another process has")
