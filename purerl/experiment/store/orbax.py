"""What is known of orbax: how states become what it saves, and how little it should print."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from purerl.experiment.store import files


def plain(states: PyTree) -> PyTree:
    """States as NumPy arrays, typed keys as their numbers; None for an empty array.

    What is on a device is copied: its place is given away with the next chunk. orbax refuses empty
    arrays, of which the shape tells everything. Arrays that are spread over several processes stay
    where they are.
    """

    def one(leaf: Any) -> np.ndarray | jax.Array | None:
        if not leaf.size:
            return None
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        data = jax.random.key_data(leaf) if is_key else leaf
        is_here = isinstance(data, jax.Array) and data.is_fully_addressable
        return np.array(data) if is_here else data

    return jax.tree.map(one, states)


def _plain_like(leaf: Any) -> np.ndarray | None:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return np.empty(leaf.shape, leaf.dtype) if leaf.size else None


def _as(restored: Any, like: Any) -> Any:
    if like is not None and jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(restored, impl=like.dtype._impl)
    if restored is None and like is not None:
        return np.empty(like.shape, like.dtype)
    return restored


def orbax() -> Any:
    import orbax.checkpoint  # it takes a second: only where something is saved or restored

    return orbax.checkpoint


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let orbax not print the tracebacks of an error that it also raises.

    After a failure its other writes come back to an event loop that is closed, or fail too with
    nobody to tell, for a while: what is printed of that is left out from then on.
    """
    logger, loop = logging.getLogger("absl"), logging.getLogger("asyncio")
    level, raised, unraisable = logger.level, sys.excepthook, sys.unraisablehook
    filters = list(loop.filters)

    def shows(kind: Any, error: BaseException, traceback: Any) -> None:
        if not _is_late(error):
            raised(kind, error, traceback)

    def shows_unraisable(told: Any) -> None:  # a callback from C has nobody to raise to
        if not _is_late(told.exc_value):
            unraisable(told)

    logger.setLevel(logging.CRITICAL + 1)
    loop.addFilter(_is_news)
    sys.excepthook, sys.unraisablehook = shows, shows_unraisable
    try:
        yield
        sys.excepthook, sys.unraisablehook = raised, unraisable
        loop.filters[:] = filters
    finally:
        logger.setLevel(level)


def _is_late(error: BaseException | None) -> bool:
    in_main = threading.current_thread() is threading.main_thread()
    return str(error) == "Event loop is closed" and not in_main


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of asyncio is not that of a write for which there was no room."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, Exception) and files.is_full(error))
