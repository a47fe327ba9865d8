"""The directory of a run: chosen, locked, marked with its header, cleared of later files."""

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from purerl.config.config import Config
from purerl.experiment.hosts.processes import is_main_process, on_main_process
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import (
    CHECKPOINTS,
    RECORDS,
    copied_header,
    has_checkpoints,
    latest_checkpoint,
)
from purerl.experiment.store.files import (
    CorruptFileError,
    explaining_write_errors,
    read_checked_json,
    write_checked_json,
)
from purerl.experiment.store.header import (
    diff,
    find_header,
    format_diff,
    require_readable,
    through_json,
)
from purerl.experiment.store.own_files import (
    LOCK,
    discard_after,
    remove_leftovers,
    remove_own,
    require_own_names,
)
from purerl.experiment.store.paths import READ_RESULT, as_directory, resume_command, shown
from purerl.experiment.store.spec import RunSpec

LOCK_TIMEOUT = 0.1  # seconds, by which `is_in_use` has released a lock


def choose_directory(header: dict[str, Any], directory: str | Path | None) -> str:
    """The directory of a run, absolute, `default_directory` if none is given.

    **Raises:** `ValueError` where it is no path, or holds another run or files that training would
    overwrite.
    """
    chosen = as_directory(default_directory(header) if directory is None else directory)
    require_same_run(chosen, header)
    require_own_names(chosen, header.get("hooks", ()))
    return str(chosen)


def default_directory(header: dict[str, Any]) -> Path:
    """`runs/ENV-ALGORITHM`, numbered from 2 on where another or a finished run is there."""
    suffix = "-sweep" if header["kind"] == "sweep" else ""
    name = f"{header['env']}-{header['config']['algorithm']['name']}{suffix}"
    directory, number = Path("runs") / name, 1
    while True:
        other = find_header(directory)
        if other is None or (is_same_run(other, header) and not is_finished(directory, header)):
            return directory
        number += 1
        directory = Path("runs") / f"{name}-{number}"


def require_same_run(directory: Path, header: dict[str, Any]) -> None:
    """Raise a `ValueError` where a directory holds another run."""
    other = find_header(directory)
    if other is None or is_same_run(other, header):
        return
    problem = f"directory = {shown(directory)!r} holds another run"
    if not other:
        raise ValueError(
            f"{problem}, whose {files.HEADER} is damaged or not purerl's; name another directory."
        )
    names, header = ("kind", "root", "seeds", "config"), through_json(header)
    differences = diff(
        {name: other.get(name) for name in names}, {name: header.get(name) for name in names}
    )
    difference = format_diff(differences) or "the code of its functions"
    raise ValueError(f"{problem}, which differs: {difference}; name another directory.")


def is_same_run(header: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two headers have equal configs, roots and seeds."""
    return all(header.get(name) == other.get(name) for name in ("fingerprint", "root", "seeds"))


def is_finished(directory: Path, header: dict[str, Any]) -> bool:
    """Whether a directory holds the result of a run, or of a sweep that trained to its end."""
    if header["kind"] == "run":
        return (directory / files.SUMMARY).exists()
    try:
        result = json.loads((directory / files.SWEEP).read_text())
    except (OSError, ValueError):
        return False
    return result.get("updates") == header["config"]["num_updates"]


def require_unused(directory: Path, config: Config) -> None:
    """Refuse a directory with a result or checkpoints: they would be lost."""
    has_result = any((directory / name).exists() for name in (files.SUMMARY, files.METRICS))
    if has_checkpoints(directory):
        updates = latest_checkpoint(directory, warn=False)
        finished = (directory / files.SUMMARY).exists() or updates == config.num_updates
        position = "" if updates is None else f" at update {updates} of {config.num_updates}"
        status = "is finished" if finished else f"has stopped{position}"
        advice = f"{resume_command(directory)} {'loads it' if finished else 'goes on'}"
    elif has_result:
        status = "has a result but no checkpoint"
        advice = f"{READ_RESULT}; {resume_command(directory, force=True)} trains it anew"
    else:
        return
    raise ValueError(
        f"the run in {shown(directory)} {status}; {advice}; remove the directory to train anew."
    )


@contextlib.contextmanager
def provisional_header(spec: RunSpec, directory: Path) -> Iterator[None]:
    """Write the header; after a `ValueError` inside, put back the file of before."""
    path = directory / files.HEADER
    before: list[bytes] = []  # empty but in the main process

    def write() -> None:
        if path.exists():
            before.append(path.read_bytes())
        write_header(directory, spec.header())

    on_main_process(write)
    try:
        yield
    except ValueError:
        if is_main_process() and before:
            files.write_atomically(path, lambda file: file.writelines(before))
        elif is_main_process():
            path.unlink()
        raise


def write_header(directory: Path, header: dict[str, Any]) -> None:
    """Write the header of a run; `RunError` where it cannot be written."""
    with explaining_write_errors(f"{shown(directory)} cannot be written"):
        write_checked_json(directory / files.HEADER, header)


def read_header(directory: Path) -> dict[str, Any]:
    """Read the header, or where it is damaged the copy in the newest checkpoint that has one.

    **Raises:** `ValueError` where there is none, or it is of another version of purerl.
    """
    path = directory / files.HEADER
    try:
        header = read_checked_json(path)
    except (FileNotFoundError, CorruptFileError) as error:
        header = copied_header(directory)
        if header is None:
            raise ValueError(
                f"{shown(path)} is damaged, and there is no checkpoint to take it from: nothing "
                f"can be restored; remove {shown(directory)}, or name another directory."
            ) from error
        warnings.warn(
            f"{shown(path)} is damaged; the copy in the checkpoint is used.", stacklevel=3
        )
    require_readable(f"the run in {shown(directory)!r}", header)
    return header


def prepare_directory(spec: RunSpec, directory: Path, start: int) -> None:
    """Write the header, and remove a run's results and what it has after update `start`."""
    write_header(directory, spec.header())
    with explaining_write_errors(f"{shown(directory)} cannot be written"):
        for name in (files.SUMMARY, files.METRICS):  # of a shorter run
            remove_own(directory / name)
        for name in (CHECKPOINTS, RECORDS):
            (directory / name).mkdir(exist_ok=True)
        remove_leftovers(directory)
        discard_after(directory, start)


class Lock:
    """Holds a run directory until the `with` or the process ends.

    **Raises:** `ValueError` where another process holds it, or nothing can be written there.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._file = -1

    def __enter__(self) -> "Lock":
        problem = f"directory = {shown(self.directory)!r} cannot be"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._file = _open_lock(self.directory, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ValueError(f"{problem} written: {error.strerror}; name another.") from error
        try:
            self._lock()
        except BlockingIOError:
            os.close(self._file)
            raise ValueError(
                f"directory = {shown(self.directory)!r} is in use by another run; wait for it, or "
                f"name another directory."
            ) from None
        except OSError as error:
            os.close(self._file)
            raise ValueError(f"{problem} locked: {error.strerror}; name another.") from error
        return self

    def _lock(self) -> None:
        """Lock the file; wait for `is_in_use`, which may hold it for a moment."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(LOCK_TIMEOUT / 20)

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)  # this frees the lock


def is_in_use(directory: Path) -> bool:
    """Whether a process works on a run."""
    try:
        file = _open_lock(directory, os.O_RDONLY)
    except OSError:
        return False  # no lock file that can be read
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    finally:
        os.close(file)
    return False


def _open_lock(directory: Path, flags: int) -> int:
    """Open the lock file, which is no link, and no pipe that would wait for its other end."""
    path = directory / LOCK
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{LOCK} is no file", str(path))
    return file
