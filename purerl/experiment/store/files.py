"""The files of a run directory, each written whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from purerl.experiment.hosts.stopping import RunError

HEADER = "config.json"
METRICS = "metrics.npz"
SUMMARY = "summary.json"
SWEEP = "sweep.json"
PART = ".part"  # behind the name of a file while it is written


def write_json(path: Path, value: Any) -> None:
    """Write JSON; numbers that are not finite become null."""
    text = json.dumps(plain_numbers(value), indent=2) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name into one npz file."""
    everything: dict[str, Any] = dict(arrays)
    write_whole(path, lambda file: np.savez(file, **everything))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote, without pickle: nothing in it is executed.

    **Raises:** `OSError` where it cannot be opened, `ValueError` where it is something else.
    """
    with open(path, "rb") as file:
        try:
            with np.load(file) as saved:
                return dict(saved)
        except Exception as error:  # numpy and zipfile raise a dozen kinds, OSError too
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path} is damaged: {reason}") from error


def require_writable(name: str, path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed for it."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"{name} = {str(path)!r} cannot be written: {error.strerror}; name another file."
        ) from error


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside its place and move it there: a crash leaves what was there before.

    **Raises:** `OSError` that names the file.
    """
    temporary = path.with_name(path.name + PART)
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def is_full(error: Exception) -> bool:
    """Whether a write has failed for want of room."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return full or "No space left" in str(error) or "File too large" in str(error)


def plain_numbers(value: Any) -> Any:
    """A value for JSON: NumPy's numbers as Python's, null for those that are not finite."""
    if isinstance(value, dict):
        return {key: plain_numbers(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain_numbers(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


class DamagedError(Exception):
    """A file is not what was written: torn, emptied, or changed."""


def write_signed(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with the SHA-256 of its content."""
    text = _text(plain_numbers(content))
    write_whole(path, lambda file: file.write(text.encode()))


def read_signed(path: Path) -> dict[str, Any]:
    """Read what `write_signed` wrote.

    **Raises:** `FileNotFoundError`, or `DamagedError` where a byte differs from what was written.
    """
    try:
        text = path.read_text()
        content = json.loads(text)
        del content["sha256"]
        sound = text == _text(content)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path.name} cannot be read") from error
    if not sound:
        raise DamagedError(f"{path.name} is not as it was written")
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({"sha256": digest, **content}, indent=2) + "\n"


@contextlib.contextmanager
def written(what: str, then: str = ".") -> Iterator[None]:
    """Say in one line what could not be written, and why.

    **Raises:** `RunError` then.
    """
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if is_full(error) else error.strerror or error
        raise RunError(f"{what}: {reason}{then}") from error
