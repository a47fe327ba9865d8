"""Runs `purerl COMMAND …`, from its words to an exit code.

Importing this imports nothing that takes long: a Ctrl-C meanwhile would show a traceback.
"""

import contextlib
import dataclasses
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from purerl.experiment.hosts.terminal import forgiving_terminal

BEGAN = time.perf_counter()  # before the imports, whose seconds are shown


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Errors end with one line on stderr. The exit code is 2 for bad input, 1 for a run that cannot go
    on or of which no agent is left, and 128 plus the signal's number for a run that a signal
    stopped. What a terminal cannot show is lost, and changes no exit code.
    """
    with forgiving_terminal():
        try:
            with _ending_at_once():
                words = sys.argv[1:] if args is None else args
                command = None if words == ["--version"] else _parse(words)
                if command is not None:
                    _import_commands()
            from purerl.checks import speaking_to_a_shell

            warnings.showwarning = _show_warning
            os.environ["MPLBACKEND"] = "agg"  # nothing opens a window
            with speaking_to_a_shell():
                _run(command)
        except KeyboardInterrupt:
            _end_at_once()  # without waiting for a chunk that is still computed


def _parse(args: list[str] | None) -> Any:
    import tyro

    from purerl.cli.arguments import Command
    from purerl.cli.words import REGISTRY

    return tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="purerl",
        args=args,
        description="Train policy-gradient agents on pure-JAX environments. `purerl --version` "
        "says which purerl, jax and devices these are.",
        config=(tyro.conf.OmitArgPrefixes,),
        registry=REGISTRY,
    )


def _import_commands() -> None:
    from purerl.experiment.hosts.startup import gc_paused

    with gc_paused():
        import purerl.cli.commands  # noqa: F401


def _run(command: Any) -> None:
    """Carry out a command, or without one say the version.

    An error ends the process with its line and its exit code.
    """
    from purerl.checks import printable
    from purerl.experiment.hosts.distributed import exit_process, initialize
    from purerl.experiment.hosts.processes import is_main_process, is_raised_by_all
    from purerl.experiment.hosts.startup import use_all_cores, use_compilation_cache
    from purerl.experiment.hosts.stopping import RunError, Stopped

    try:
        use_all_cores()
        if command is None:
            print(_version())
            return
        from purerl.cli import commands

        use_compilation_cache()
        processes = getattr(command, "processes", None)
        if processes is not None and (arguments := processes.arguments()):
            initialize(**arguments)
        commands.execute(command, BEGAN)
    except (Exception, Stopped) as error:
        if (ending := _ending(error)) is None:
            raise
        line, code = ending
        is_alone = not is_raised_by_all(error)
        if is_alone or is_main_process():
            print(f"purerl: {printable(_with_flags(line, command))}", file=sys.stderr)
        exit_process(code, at_once=is_alone and isinstance(error, RunError))


def _with_flags(line: str, command: Any) -> str:
    """A message in which `NAME = value` names an option that was given: as its flag."""
    given = {name for name, value, default in _options(command) if value != default}
    return re.sub(
        r"(?<![\w.'-])(?<!\* )(\w+)(?= = )",
        lambda found: f"--{found[0].replace('_', '-')}" if found[0] in given else found[0],
        line,
    )


def _version() -> str:
    """`purerl 0.1.0, jax 0.10.2, cpu: 2 × cpu`: the versions, the backend and its devices."""
    import collections

    import jax

    from purerl import __version__

    kinds = collections.Counter(device.device_kind for device in jax.devices())
    devices = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
    return f"purerl {__version__}, jax {jax.__version__}, {jax.default_backend()}: {devices}"


def _options(command: Any) -> Iterator[tuple[str, Any, Any]]:
    """The name, value and default of each option of a command."""
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if dataclasses.is_dataclass(value):
            yield from _options(value)
        else:
            yield field.name, value, field.default


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Within this, Ctrl-C ends the process: an import could turn its exception into another."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once(*_: Any) -> None:
    print("purerl: stopped at once; what was saved is kept.", file=sys.stderr)
    os._exit(130)


def _ending(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code of an error; None for a bug, which shows its traceback."""
    from purerl.checks import first_line
    from purerl.experiment.hosts.stopping import RunError, Stopped

    if isinstance(error, Stopped):
        return str(error), 128 + error.signal_number
    if isinstance(error, RunError):
        return str(error), 1
    if isinstance(error, ValueError) and "\n" not in str(error):  # from one of the checks
        return str(error), 2
    # An `OSError` of a library names no file, or gives no reason.
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename} cannot be read or written: {error.strerror}", 2
    if isinstance(error, MemoryError):
        return f"out of memory: {first_line(error)}", 1
    if (reason := _why_jax_cannot_start(error)) is not None:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        return f"jax cannot start with JAX_PLATFORMS={platforms}: {reason}", 2
    return None


def _why_jax_cannot_start(error: BaseException) -> str | None:
    """The reason why no backend starts, which jax may tell by any error; None where one does."""
    import jax

    from purerl.checks import first_line

    if isinstance(error, RuntimeError) and "nable to initialize backend" in str(error):
        return first_line(error)
    try:
        jax.devices()
    except Exception as failure:
        return first_line(failure)
    return None


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    from purerl.checks import printable

    print(f"purerl: warning: {printable(str(message))}", file=sys.stderr)
