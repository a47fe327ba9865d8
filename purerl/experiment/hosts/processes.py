"""A run in several processes: who does what, and what they tell each other.

Every process runs the same program on its share of the devices, and between chunks all decide the
same. Only the first, the main process, shows, writes and calls hooks.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from numpy import ndarray

from purerl.experiment.hosts.stopping import LostProcessError, RunError

ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "RunError": RunError}
# In the errors of jax when the other side of a collective or of the coordination service is gone.
LOST_PROCESS = re.compile(
    "Gloo|NCCL|coordination.?service|Connection (closed|reset)|heartbeat|barrier", re.I
)
PATH = re.compile(r"\S*/\S*")  # a path in an error may contain any of these words


def is_multi_process() -> bool:
    """Whether this is one process of several."""
    return jax.process_count() > 1


def is_main_process() -> bool:
    """Whether this is the process that shows, writes and calls hooks."""
    return jax.process_index() == 0


def all_gather(value: Any) -> list[Any]:
    """Gather a JSON value from each process, in their order; all must call it."""
    if not is_multi_process():
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    with _raising_lost_process():
        sizes = multihost_utils.process_allgather(np.array([data.size], np.int32))
        # Sizes are powers of two, since each size is another program.
        padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)
        padded[: data.size] = data
        rows = multihost_utils.process_allgather(padded)
    pairs = zip(rows, sizes.reshape(-1), strict=True)
    return [json.loads(row[:size].tobytes()) for row, size in pairs]


def on_main_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the main process alone; all must call this, and get what it returns.

    With several processes that must be a value for JSON.

    **Raises:** the function's error, in all processes. In the others it is a `RunError`, or a
    `ValueError` where it was one.
    """
    if not is_multi_process():
        return function(*args)
    outcome, error = {}, None
    if is_main_process():
        try:
            outcome = {"value": function(*args)}
        except Exception as raised:
            error, error_type = raised, type(raised).__name__
            outcome = {
                "error": error_type if error_type in ERRORS else "RunError",
                "message": str(raised),
            }
    outcome = all_gather(outcome)[0]
    if "value" in outcome:
        return outcome["value"]
    raise mark_raised_by_all(error or ERRORS[outcome["error"]](outcome["message"]))


def mark_raised_by_all(error: BaseException) -> Any:
    """Mark an error as one that all processes raise together."""
    error.raised_by_all = True  # pyright: ignore[reportAttributeAccessIssue]
    return error


def is_raised_by_all(error: BaseException) -> bool:
    """Whether all processes raise an error together."""
    return getattr(error, "raised_by_all", False)


@contextlib.contextmanager
def entered_by_main_process(manager: Any) -> Iterator[None]:
    """Enter a context in the main process alone; the others wait until it has been left."""
    with contextlib.ExitStack() as stack:
        on_main_process(lambda: stack.enter_context(manager) and None)
        yield
    all_gather(None)


def gather_to_host(leaf: Any) -> ndarray:
    """A whole array on the host of every process; all must call it."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    with _raising_lost_process():
        on_device = jax.device_put(leaf, leaf.sharding.with_memory_kind("device"))
        return multihost_utils.process_allgather(on_device, tiled=True)


@contextlib.contextmanager
def _raising_lost_process() -> Iterator[None]:
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if is_raised_by_all(error) or not is_lost_process(error):
            raise
        raise LostProcessError("another process has died") from error


def is_lost_process(error: BaseException | None) -> bool:
    """Whether an error, or its cause, means that another process is gone."""
    if error is None or not is_multi_process():
        return False
    message, cause = PATH.sub("", str(error)), error.__cause__ or error.__context__
    return LOST_PROCESS.search(message) is not None or is_lost_process(cause)


@contextlib.contextmanager
def explaining_lost_processes(directory: str | Path) -> Iterator[None]:
    """Say how to go on where another process has died, and raise `LostProcessError`.

    Where jax's coordination service notices first, it ends this process at once: `message_at_exit`
    says it then.
    """
    if not is_multi_process():
        yield
        return
    number, count = jax.process_index(), jax.process_count()
    problem = f"process {number} of {count}: another process of this run has died"
    advice = f"what was saved is kept; to go on: purerl resume {directory} --distributed"
    with message_at_exit(f"purerl: {problem}, or this one was killed; {advice}"):
        try:
            with _raising_lost_process():
                yield
        except LostProcessError as error:
            raise LostProcessError(f"{problem}; {advice}") from error


@contextlib.contextmanager
def message_at_exit(line: str) -> Iterator[None]:
    """Print a line on stderr if this process ends inside, in whatever way: a shell waits for it."""
    script = 'read -r over || printf "%s\\n" "$0" >&2'
    # Its own session: signals to this process do not end the shell.
    shell = subprocess.Popen(
        ["sh", "-c", script, line], stdin=subprocess.PIPE, start_new_session=True
    )
    assert shell.stdin is not None
    try:
        yield
    finally:
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            shell.stdin.write(b"over\n")
            shell.stdin.close()
        shell.wait()
