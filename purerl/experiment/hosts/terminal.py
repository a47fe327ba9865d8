"""What is said on a terminal: where it cannot be said, it is lost, and nothing else is.

Importing this imports neither jax nor rich: the command line begins with it.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class Terminal:
    """Writes to a stream that may be full, gone, closed or None: what it does not take is lost.

    A letter that the stream's encoding lacks becomes `?`. The text goes to the file at once:
    nothing is left in a buffer, which Python would fail to write when the process ends.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # full or gone; closed
            self._write(text)
        return len(text)

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        data = text.encode(self.encoding, "replace")
        try:
            descriptor = self._stream.fileno()
        except (OSError, AttributeError):  # no file: a notebook's stream, or a test's
            self._stream.write(data.decode(self.encoding))
            return
        self._stream.flush()
        while data:
            data = data[os.write(descriptor, data) :]

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_terminal() -> Iterator[None]:
    """Within this, whatever is printed or shown goes through a `Terminal`."""
    _occupy_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Terminal(before[0]), Terminal(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _occupy_descriptors() -> None:
    """Put the null device in the place of a stream that is closed.

    Else the next file of the run would get its number, and libraries would log into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
