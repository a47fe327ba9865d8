"""What ends a run early: errors, a signal after the chunk, a second SIGINT at once."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import jax

T = TypeVar("T")

# Settings of jax that a `with` changes for its own thread, and that tracing or computing reads.
THREAD_LOCAL_SETTINGS = (
    "debug_infs",
    "debug_nans",
    "default_device",
    "default_matmul_precision",
    "default_prng_impl",
    "enable_x64",
    "log_compiles",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "threefry_partitionable",
)


class RunError(RuntimeError):
    """A run that cannot go on, in one line; what was saved is kept."""


class LostProcessError(RunError):
    """A run of which another process has died."""


class Stopped(KeyboardInterrupt):
    """A run that a signal has stopped, after its state was saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def is_second_interrupt(error: BaseException | None) -> bool:
    """Whether an error is a second Ctrl-C: then the process ends without waiting."""
    return isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped)


class Signals:
    """Remembers SIGINT, SIGTERM and SIGHUP in `received` until the `with` ends, in the main thread.

    A second SIGINT raises `KeyboardInterrupt`. A SIGHUP that is ignored stays so, as with `nohup`.
    """

    def __init__(self):
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


def call_interruptibly(function: Callable[..., T], *args: Any) -> T:
    """Call a function that computes for long, and let signals be handled meanwhile.

    Python handles no signal during a call into compiled code in the main thread. So another thread
    makes the call, with the jax settings of this one.
    """
    values = {name: getattr(jax.config, f"jax_{name}") for name in THREAD_LOCAL_SETTINGS}
    outcome: list[Any] = []
    done = threading.Event()

    def call() -> None:
        try:
            with contextlib.ExitStack() as settings:
                for name, value in values.items():
                    settings.enter_context(getattr(jax, name)(value))
                outcome.extend((True, function(*args)))
        except BaseException as error:
            outcome.extend((False, error))
        done.set()

    threading.Thread(target=call, daemon=True).start()
    done.wait()
    succeeded, value = outcome
    if not succeeded:
        raise value
    return value
