"""States that are spread over several processes: each writes its share, with orbax."""

import contextlib
import logging
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purerl.experiment.store import files

SHARDS = "states"  # the folder that orbax writes
PLAIN = re.compile(r"[\w/.,=+-]+", re.ASCII)  # paths in which orbax finds its own files


class ShardWriter:
    """Writes the share of this process of the leaves, in the background; all processes call it."""

    def __init__(self):
        ocp = import_orbax()
        # With named processes, orbax waits through jax's coordination service and not in a
        # collective, which would collide with those of training.
        processes = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count()))
        )
        self._checkpointer = ocp.StandardCheckpointer(multiprocessing_options=processes)
        self._path = contextlib.ExitStack()

    def begin(self, folder: Path, leaves: Sequence[Any]) -> None:
        """Copy the leaves from the devices, and begin to write them into a folder that is there."""
        plain = self._path.enter_context(plain_path(folder))
        self._checkpointer.save(plain / SHARDS, _numbered(leaves))

    def wait(self) -> None:
        """Wait until all processes have written their shares."""
        with self._path, quiet_orbax():
            self._checkpointer.wait_until_finished()

    def close(self) -> None:
        # It raises the error of a failed save again.
        with contextlib.suppress(Exception), quiet_orbax():
            self._checkpointer.close()


def shards_of(leaves: Sequence[Any]) -> list[list[tuple[Any, np.ndarray]]]:
    """A copy of what this process holds of each leaf: where it lies in the whole, and the array."""
    return [
        [(shard.index, np.array(shard.data)) for shard in leaf.addressable_shards]
        if isinstance(leaf, jax.Array)
        else [((), np.asarray(leaf))]
        for leaf in leaves
    ]


def read_shards(folder: Path, shapes: Sequence[Any], *, alone: bool = False) -> list[np.ndarray]:
    """Read whole leaves of the given shapes and dtypes from a checkpoint of several processes.

    All processes call it, unless `alone`.
    """
    ocp, me = import_orbax(), jax.process_index()
    only_me = {"active_processes": {me}, "primary_host": me} if alone else {}
    options = ocp.options.MultiprocessingOptions(**only_me)
    template = _numbered([np.empty(leaf.shape, leaf.dtype) for leaf in shapes])
    with (
        plain_path(folder) as plain,
        ocp.StandardCheckpointer(multiprocessing_options=options) as checkpointer,
    ):
        restored = checkpointer.restore(plain / SHARDS, template)
    return [
        restored.get(str(number), np.empty(leaf.shape, leaf.dtype))
        for number, leaf in enumerate(shapes)
    ]


def _numbered(leaves: Sequence[Any]) -> dict[str, Any]:
    """Leaves by number, without those that are empty, which orbax refuses."""
    return {str(number): leaf for number, leaf in enumerate(leaves) if leaf.size}


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path to a folder in which no letter is special: orbax globs below the path that it gets."""
    if PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="purerl-") as home:
        alias = Path(home) / "checkpoint"
        alias.symlink_to(folder)
        yield alias


def import_orbax() -> Any:
    """`orbax.checkpoint`, imported late: it takes a second."""
    import orbax.checkpoint

    return orbax.checkpoint


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Hide the tracebacks that orbax prints of an error that it also raises.

    After a failure its other writes fail for a while too, or find their event loop closed. So the
    hooks, the filter and the level then stay, to hide those errors.
    """
    absl, asyncio = logging.getLogger("absl"), logging.getLogger("asyncio")
    level, excepthook, unraisablehook = absl.level, sys.excepthook, sys.unraisablehook
    filters = list(asyncio.filters)

    def show(error_type: Any, error: BaseException, traceback: Any) -> None:
        if not _is_late(error):
            excepthook(error_type, error, traceback)

    def show_unraisable(unraisable: Any) -> None:  # of a callback from C
        if not _is_late(unraisable.exc_value):
            unraisablehook(unraisable)

    absl.setLevel(logging.CRITICAL + 1)
    asyncio.addFilter(_is_news)
    sys.excepthook, sys.unraisablehook = show, show_unraisable
    yield
    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook
    asyncio.filters[:] = filters
    absl.setLevel(level)


def _is_late(error: BaseException | None) -> bool:
    in_main = threading.current_thread() is threading.main_thread()
    return str(error) == "Event loop is closed" and not in_main


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record of asyncio is not of a write to a full disk."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, Exception) and files.is_disk_full(error))
