"""Runs `purerl COMMAND …`, from its words to an exit code."""

import os
import sys
import time
import warnings

BEGAN = time.perf_counter()  # before the imports, whose seconds are shown

import tyro  # noqa: E402

from purerl.cli.arguments import Command, Resume, Train  # noqa: E402


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Errors end with one line on stderr. The exit code is 2 for bad input, 1 for a run that cannot go
    on or of which no agent is left, and 128 plus the signal's number for a run that a signal
    stopped.
    """
    command = tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="purerl",
        args=args,
        description="Train policy-gradient agents on pure-JAX environments.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from purerl.experiment.hosts.startup import gc_paused, use_all_cores, use_compilation_cache

    with gc_paused():
        from purerl.cli import commands
    from purerl.experiment.hosts.distributed import exit_process, initialize
    from purerl.experiment.hosts.processes import is_main_process, is_raised_by_all
    from purerl.experiment.hosts.stopping import RunError, Stopped

    use_all_cores()
    use_compilation_cache()
    sys.path.insert(0, os.getcwd())  # --env package.module:Name means the user's own
    warnings.showwarning = _show_warning
    try:
        if isinstance(command, Train | Resume) and (arguments := command.processes.arguments()):
            initialize(**arguments)
        commands.execute(command, BEGAN)
    except (Exception, Stopped) as error:
        if (ending := _ending(error)) is None:
            raise
        line, code = ending
        is_alone = not is_raised_by_all(error)
        if is_alone or is_main_process():
            print(f"purerl: {line}", file=sys.stderr, flush=True)
        exit_process(code, at_once=is_alone and isinstance(error, RunError))
    except KeyboardInterrupt:
        print("purerl: stopped at once; what was saved is kept.", file=sys.stderr, flush=True)
        os._exit(130)  # without waiting for a chunk that is still computed


def _ending(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code of an error; None for a bug, which shows its traceback."""
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
    return None


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"purerl: warning: {message}", file=sys.stderr)
