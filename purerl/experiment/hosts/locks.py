"""Locks on files, which the system frees when a process ends, in whatever way."""

import errno
import os
import stat
import time
from pathlib import Path

from filelock import lock_descriptor

# Windows has none of them: there a name is no pipe, and a link is made by an administrator.
NO_WAIT, NO_LINK, NO_HEIRS = (
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC")
)
WAIT = 0.1  # seconds, by which `is_held` has freed a lock that it takes for a moment


def hold(path: Path) -> int | None:
    """Lock a file, which is made where there is none; None where another process holds it.

    **Returns:** its descriptor: to close it frees the lock.

    **Raises:** `OSError` where it cannot be made or locked, or is a link, or no file.
    """
    descriptor = _open(path, os.O_RDWR | os.O_CREAT)
    deadline = time.monotonic() + WAIT
    try:
        while not lock_descriptor(descriptor, blocking=False):
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(WAIT / 20)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def is_held(path: Path) -> bool:
    """Whether another process holds the lock on a file; nothing is written."""
    try:
        descriptor = _open(path, os.O_RDONLY)
    except OSError:
        return False  # no file that can be read
    deadline = time.monotonic() + WAIT
    try:  # another may be looking too, for a moment
        while not lock_descriptor(descriptor, blocking=False):
            if time.monotonic() > deadline:
                return True
            time.sleep(WAIT / 20)
        return False
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    """Open a file that is no link, and no pipe that would wait for its other end."""
    descriptor = os.open(path, flags | NO_WAIT | NO_LINK | NO_HEIRS, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is no file", str(path))
    return descriptor
