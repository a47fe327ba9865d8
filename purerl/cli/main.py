"""The command line: `purerl COMMAND …`, from its words to an exit code."""

import os
import sys
import time
import warnings

BEGAN = time.perf_counter()  # before the imports, whose time is shown

import tyro  # noqa: E402

from purerl.cli.arguments import Command, Resume, Train  # noqa: E402


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Bad input ends with one line on stderr and exit code 2, a run that cannot go on with 1, one that
    a signal has stopped with 128 and the signal's number.
    """
    command = tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="purerl",
        args=args,
        description="Train policy-gradient agents on pure-JAX environments.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from purerl.experiment.hosts.startup import no_collection

    with no_collection():
        from purerl.cli import commands
    from purerl.experiment.hosts.distributed import initialize, leave
    from purerl.experiment.hosts.processes import is_agreed, is_first
    from purerl.experiment.hosts.startup import use_all_cores, use_compilation_cache
    from purerl.experiment.hosts.stopping import RunError, Stopped

    use_all_cores()
    use_compilation_cache()
    sys.path.insert(0, os.getcwd())  # --env package.module:Name means the user's own
    warnings.showwarning = _show_warning
    try:
        if isinstance(command, Train | Resume):
            joining = command.processes.arguments()
            if joining is not None:
                initialize(**joining)
        commands.execute(command, BEGAN)
    except (Exception, Stopped) as error:
        ending = _ending(error)
        if ending is None:
            raise
        line, code = ending
        alone = not is_agreed(error)
        if alone or is_first():
            print(f"purerl: {line}", file=sys.stderr, flush=True)
        leave(code, at_once=alone and isinstance(error, RunError))
    except KeyboardInterrupt:
        print("purerl: stopped at once; what was saved stands.", file=sys.stderr, flush=True)
        os._exit(130)  # a chunk may still be computed: it is not waited for


def _ending(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code that an error comes to; None where it is a bug.

    A bug should show its traceback.
    """
    from purerl.experiment.hosts.stopping import RunError, Stopped

    if isinstance(error, Stopped):
        return str(error), 128 + error.signal_number
    if isinstance(error, RunError):
        return str(error), 1
    if isinstance(error, ValueError) and "\n" not in str(error):  # one of the checks' lines
        return str(error), 2
    # Those of a library name no file, or give no reason.
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename} cannot be read or written: {error.strerror}", 2
    return None


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"purerl: warning: {message}", file=sys.stderr)
