"""A run directory belongs to one process at a time; the kernel sees to it."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

LOCK = ".lock"
PATIENCE = 0.1  # seconds in which whoever looks at a lock has let go of it


class Lock:
    """Holds a run directory until the `with` ends, or the process, however it ends.

    **Raises:** `ValueError` where another process holds it, or nothing can be written there.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._file = -1

    def __enter__(self) -> "Lock":
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ValueError(
                f"directory = {str(self.directory)!r} cannot be written: {error.strerror}; "
                f"name another."
            ) from error
        try:
            self._lock()
        except OSError as error:
            os.close(self._file)
            named = f"directory = {str(self.directory)!r}"
            if isinstance(error, BlockingIOError):
                raise ValueError(
                    f"{named} is in use by another run; wait for it, or name another directory."
                ) from None
            raise ValueError(
                f"{named} cannot be locked: {error.strerror}; name another."
            ) from error
        return self

    def _lock(self) -> None:
        """Lock the file, which `in_use` may hold for a moment."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
            time.sleep(PATIENCE / 20)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)  # which frees the lock


def in_use(directory: Path) -> bool:
    """Whether a process is at work on a run."""
    try:
        with open(directory / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # it has no lock file, or none that can be read
    return False
