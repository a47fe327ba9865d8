"""What orbax needs: states as it can save them, and less of its output."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from purerl.checks import is_typed_key
from purerl.experiment.store import files


def to_saveable(states: PyTree) -> PyTree:
    """States as NumPy arrays, typed keys as their numbers; None for an empty array.

    Arrays on a device are copied, as the next chunk overwrites them. Arrays that are spread over
    several processes stay there. orbax refuses empty arrays.
    """

    def saveable(leaf: Any) -> np.ndarray | jax.Array | None:
        if not leaf.size:
            return None
        data = jax.random.key_data(leaf) if is_typed_key(leaf) else leaf
        is_here = isinstance(data, jax.Array) and data.is_fully_addressable
        return np.array(data) if is_here else data

    return jax.tree.map(saveable, states)


def restore_template(leaf: Any) -> np.ndarray | None:
    """An array of the shape and dtype that `to_saveable` gives; None for an empty leaf."""
    if is_typed_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return np.empty(leaf.shape, leaf.dtype) if leaf.size else None


def from_saveable(restored: Any, like: Any) -> Any:
    """A leaf of the states from what `to_saveable` made of it; `like` has its shape and dtype."""
    if is_typed_key(like):
        return jax.random.wrap_key_data(restored, impl=like.dtype._impl)
    if restored is None and like is not None:
        return np.empty(like.shape, like.dtype)
    return restored


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
