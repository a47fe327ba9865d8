"""The files of a run directory: each is written whole or not at all, some with their SHA-256."""

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from purerl.checks import first_line
from purerl.experiment.hosts.stopping import RunError

HEADER = "config.json"
METRICS = "metrics.npz"
SUMMARY = "summary.json"
SWEEP = "sweep.json"
PART = ".part"  # the suffix of a file that is being written
MAX_JSON = 2**28  # bytes: a run of a million seeds has half of it


class CorruptFileError(Exception):
    """A file is not as it was written: it is torn, empty or changed."""


def write_json(path: Path, value: Any) -> None:
    """Write JSON, with null for numbers that are not finite."""
    text = json.dumps(to_jsonable(value), indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_checked_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with the SHA-256 of its content."""
    text = _text(to_jsonable(content))
    write_atomically(path, lambda file: file.write(text.encode()))


def read_checked_json(path: Path) -> dict[str, Any]:
    """Read what `write_checked_json` wrote.

    **Raises:** `FileNotFoundError`, or `CorruptFileError` where a byte has changed.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_JSON:
                raise ValueError
            text = file.read(MAX_JSON + 1).decode()
        content = json.loads(text)
        del content["sha256"]
        is_sound = text == _text(content)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"{path.name} cannot be read") from error
    if not is_sound:
        raise CorruptFileError(f"{path.name} has changed since it was written")
    return content


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read it; what is none is refused, such as a pipe, which could wait for ever.

    **Raises:** `OSError`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return open(descriptor, "rb")


def _text(content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({"sha256": digest, **content}, indent=2) + "\n"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_jsonable(value: Any) -> Any:
    """Convert a value for JSON: NumPy to Python, numbers that are not finite to null."""
    if isinstance(value, dict):
        return {key: to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_jsonable(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays into one npz file."""
    named: dict[str, Any] = dict(arrays)
    write_atomically(path, lambda file: np.savez(file, **named))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote, without pickle: nothing in it is executed.

    **Raises:** `OSError` where it cannot be opened, `ValueError` where it is damaged.
    """
    with open_regular(path) as file:
        try:
            _require_stored_whole(file)
            with np.load(file) as arrays:
                return dict(arrays)
        except Exception as error:  # numpy and zipfile raise a dozen kinds, OSError too
            raise ValueError(f"{path} is damaged: {first_line(error)}") from error


def _require_stored_whole(file: BinaryIO) -> None:
    """Refuse a file whose arrays are larger than itself: a small one could fill the memory."""
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > os.fstat(file.fileno()).st_size:
        raise ValueError("its arrays are larger than itself")
    file.seek(0)


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a temporary file and move it into place: a crash leaves the file of before.

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


def require_writable(name: str, path: Path) -> None:
    """Refuse a file that cannot be written, before its content is computed."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"{name} = {str(path)!r} cannot be written: {error.strerror}; name another file."
        ) from error


@contextlib.contextmanager
def explaining_write_errors(problem: str, advice: str = ".") -> Iterator[None]:
    """Explain in one line what could not be written, and why.

    **Raises:** `RunError` for an `OSError`.
    """
    try:
        yield
    except OSError as error:
        folder = Path(error.filename).parent if isinstance(error.filename, str) else None
        if isinstance(error, FileNotFoundError) and folder is not None and not folder.is_dir():
            raise RunError(f"{problem}: {folder} is not there any more") from error
        reason = "the disk is full" if is_disk_full(error) else error.strerror or error
        raise RunError(f"{problem}: {reason}{advice}") from error


def is_disk_full(error: Exception) -> bool:
    """Whether a write failed because the disk is full."""
    is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return is_full or "No space left" in str(error) or "File too large" in str(error)
