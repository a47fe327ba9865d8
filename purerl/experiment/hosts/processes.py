"""A run in several processes: who does what, and what they tell each other.

Every process runs the same program on its share of the devices, and between chunks all decide the
same; the first alone shows, writes and calls hooks. With one process all of this is trivial.
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

from purerl.experiment.hosts.stopping import LostError, RunError

ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "RunError": RunError}
# What jax raises where the other side of a collective, or of the coordination service, is gone.
GONE = re.compile(
    "Gloo|NCCL|coordination.?service|Connection (closed|reset)|heartbeat|barrier", re.I
)
PATH = re.compile(r"\S*/\S*")  # which may be named after anything


def several() -> bool:
    """Whether this is one process of several."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that shows, writes and calls hooks."""
    return jax.process_index() == 0


def exchange(value: Any) -> list[Any]:
    """What each process has given, in order; all must call it, each with a value for JSON."""
    if not several():
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    with _gone_is_lost():
        sizes = multihost_utils.process_allgather(np.array([data.size], np.int32))
        # Of few sizes, each of which is a program.
        padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)
        padded[: data.size] = data
        rows = multihost_utils.process_allgather(padded)
    pairs = zip(rows, sizes.reshape(-1), strict=True)
    return [json.loads(row[:size].tobytes()) for row, size in pairs]


def on_first(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the first process alone; all must call it, and get what it returns.

    With several processes that is a value for JSON.

    **Raises:** what the function has raised, in all processes; elsewhere than in the first a
    `RunError`, or a `ValueError` where it was one.
    """
    if not several():
        return function(*args)
    outcome, error = {}, None
    if is_first():
        try:
            outcome = {"value": function(*args)}
        except Exception as raised:
            error, kind = raised, type(raised).__name__
            outcome = {"error": kind if kind in ERRORS else "RunError", "says": str(raised)}
    told = exchange(outcome)[0]
    if "value" in told:
        return told["value"]
    raise agreed(error or ERRORS[told["error"]](told["says"]))


def agreed(error: BaseException) -> Any:
    """An error that all processes raise together."""
    error.agreed = True  # pyright: ignore[reportAttributeAccessIssue]
    return error


def is_agreed(error: BaseException) -> bool:
    """Whether all processes raise an error together."""
    return getattr(error, "agreed", False)


@contextlib.contextmanager
def held_by_first(manager: Any) -> Iterator[None]:
    """A context that the first process alone enters; the others do not leave before it has."""
    with contextlib.ExitStack() as stack:
        on_first(lambda: stack.enter_context(manager) and None)
        yield
    exchange(None)


def to_host(leaf: Any) -> ndarray:
    """A whole array on the host of every process; all must call it."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    with _gone_is_lost():
        on_device = jax.device_put(leaf, leaf.sharding.with_memory_kind("device"))
        return multihost_utils.process_allgather(on_device, tiled=True)


@contextlib.contextmanager
def _gone_is_lost() -> Iterator[None]:
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if is_agreed(error) or not is_loss(error):
            raise
        raise LostError("another process has died") from error


def is_loss(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, tells that another process is gone."""
    if error is None or not several():
        return False
    says = PATH.sub("", str(error))
    return GONE.search(says) is not None or is_loss(error.__cause__ or error.__context__)


@contextlib.contextmanager
def losses_told(directory: str | Path) -> Iterator[None]:
    """Say how to go on where another process has died, whatever way this one comes to know.

    Where a collective fails, jax raises an error. Where jax's coordination service finds out first,
    it ends this process at once, with a page of its own; a shell that waits for that has the last
    word then.

    **Raises:** `LostError`.
    """
    if not several():
        yield
        return
    number, count = jax.process_index(), jax.process_count()
    what = f"process {number} of {count}: another process of this run has died"
    then = f"what was saved stands; to go on: purerl resume {directory} --distributed"
    with last_words(f"purerl: {what}, or this one was killed; {then}"):
        try:
            with _gone_is_lost():
                yield
        except LostError as error:
            raise LostError(f"{what}; {then}") from error


@contextlib.contextmanager
def last_words(line: str) -> Iterator[None]:
    """Leave a line on stderr where this process ends inside, in whatever way."""
    script = 'read -r over || printf "%s\\n" "$0" >&2'
    # In a session of its own: signals that are for this process do not end it.
    waiting = subprocess.Popen(
        ["sh", "-c", script, line], stdin=subprocess.PIPE, start_new_session=True
    )
    assert waiting.stdin is not None
    try:
        yield
    finally:
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            waiting.stdin.write(b"over\n")
            waiting.stdin.close()
        waiting.wait()
