"""The files of a run directory: each is written whole or not at all, some with their SHA-256."""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from purerl.checks import first_line
from purerl.experiment.hosts.locks import NO_HEIRS, NO_LINK, NO_WAIT
from purerl.experiment.hosts.stopping import RunError

HEADER = "config.json"
METRICS = "metrics.npz"
SUMMARY = "summary.json"
SWEEP = "sweep.json"
MAX_JSON = 2**28  # bytes: a run of a million seeds has half of it
# A file that is being written, or that a process which was killed has left.
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")
TEMPORARY_LETTERS = 40  # of the name that the file will have


class CorruptFileError(Exception):
    """A file is not as it was written: it is torn, empty or changed."""


def write_json(path: Path, value: Any) -> None:
    """Write JSON, with null for numbers that are not finite."""
    text = json.dumps(to_jsonable(value), indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_checked_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with the SHA-256 of its content."""
    text = _json_with_digest(to_jsonable(content))
    write_atomically(path, lambda file: file.write(text.encode()))


def read_checked_json(path: Path) -> dict[str, Any]:
    """Read what `write_checked_json` wrote.

    **Raises:** `FileNotFoundError`, `PermissionError`, or `CorruptFileError` where a byte has
    changed.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_JSON:
                raise ValueError
            text = file.read(MAX_JSON + 1).decode()
        content = json.loads(text)
        del content["sha256"]
        is_sound = text == _json_with_digest(content)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:  # nothing can have that name
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        raise CorruptFileError(f"{path.name} cannot be read") from error
    if not is_sound:
        raise CorruptFileError(f"{path.name} has changed since it was written")
    return content


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read it; what is none is refused, such as a pipe, which could wait for ever.

    **Raises:** `OSError`.
    """
    descriptor = os.open(path, os.O_RDONLY | NO_WAIT)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return open(descriptor, "rb")


def _json_with_digest(content: dict[str, Any]) -> str:
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


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write named arrays into one npz file; return the SHA-256 of what was to be written."""
    digest = hashlib.sha256()

    def write(file: BinaryIO) -> None:
        stream: Any = _HashedFile(file, digest)
        with zipfile.ZipFile(stream, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)

    write_atomically(path, write)
    return digest.hexdigest()


class _HashedFile:
    """A file that is written from its beginning to its end, and hashed on the way."""

    def __init__(self, file: BinaryIO, digest: Any):
        self._file = file
        self._digest = digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


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

    The temporary file is a new one, and no link is followed: one at `path` itself is replaced.

    **Raises:** `OSError` that names the file.
    """
    name = f".{path.name[:TEMPORARY_LETTERS]}.{secrets.token_hex(4)}.part"
    temporary = path.with_name(name)
    try:
        with open(temporary, "wb", opener=_open_new) as file:
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


def _open_new(path: str, _: int) -> int:
    """Open a file that is not there yet, not even as a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK | NO_HEIRS
    return os.open(path, flags, 0o666)


def remove_temporaries(folder: Path, names: Iterable[str]) -> None:
    """Remove what processes that were killed have left of files with these names."""
    for path in folder.iterdir():
        match = TEMPORARY.fullmatch(path.name)
        if match and match[1] in names and path.is_file() and not path.is_symlink():
            path.unlink()


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
