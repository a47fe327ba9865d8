"""Work in the background that never holds up the end of the process."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def in_background(function: Callable[..., Any], *args: Any) -> "Future[Any]":
    """Call a function in a thread of its own.

    Python does not wait for it, nor for the threads that it starts, when the process ends: after an
    error one of a library may still wait for another that will never come.
    """
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()  # the threads that it starts are so too
    return future
