"""The directory of a run: claimed, made room in, and given the result.

With several processes the first does it, and all hear of what goes wrong.
"""

import contextlib
import fcntl
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from purerl.config.config import Config
from purerl.experiment.hosts.processes import is_first, on_first
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import discard_after, has_checkpoints, header_of, newest
from purerl.experiment.store.files import DamagedError, read_signed, write_signed, written
from purerl.experiment.store.header import (
    as_json,
    differences,
    env_name,
    find_header,
    list_differences,
)
from purerl.experiment.store.spec import RunPlan

LOCK = ".lock"
PATIENCE = 0.1  # seconds in which whoever looks at a lock has let go of it


def choose_directory(plan: RunPlan, directory: str | Path | None) -> str:
    """Where a run goes: where it is asked to, if no other is there."""
    header = plan.header()
    chosen = default_directory(plan.config, header) if directory is None else Path(directory)
    require_same_run(chosen, header)
    return str(chosen)


def require_unsaved(directory: Path, config: Config) -> None:
    """Refuse a directory with something of this run in it, which is not lost unasked."""
    if (directory / files.SUMMARY).exists() or has_checkpoints(directory):
        updates = newest(directory, warn=False)
        finished = (directory / files.SUMMARY).exists() or updates == config.num_updates
        where = "" if updates is None else f" at update {updates} of {config.num_updates}"
        stands = "is finished" if finished else f"has stopped{where}"
        does = "loads it" if finished else "goes on"
        raise ValueError(
            f"the run in {directory} {stands}; purerl resume {directory} {does}; remove the "
            f"directory to train anew."
        )


@contextlib.contextmanager
def header_written(plan: RunPlan, directory: Path) -> Iterator[None]:
    """Write the header as it has been decided; where that is refused, put back what was there."""
    path = directory / files.HEADER
    before: list[bytes] = []  # of the first process alone

    def write() -> None:
        if path.exists():
            before.append(path.read_bytes())
        write_header(plan, directory)

    on_first(write)
    try:
        yield
    except ValueError:
        if is_first() and before:
            files.write_whole(path, lambda file: file.writelines(before))
        elif is_first():
            path.unlink()
        raise


def write_header(plan: RunPlan, directory: Path) -> None:
    """Write the header of a run as it has been decided."""
    with written(f"{directory} cannot be written"):
        write_signed(directory / files.HEADER, plan.header())


def make_room(plan: RunPlan, directory: Path, start: int) -> None:
    """Write the header as it has been decided, and remove what comes after the start."""
    write_header(plan, directory)
    with written(f"{directory} cannot be written"):
        for name in (files.SUMMARY, files.METRICS):  # that of a shorter run is not this one's
            (directory / name).unlink(missing_ok=True)
        discard_after(directory, start)


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


def read_header(directory: Path, start: int) -> dict[str, Any]:
    """The header, or where it is damaged the copy that the checkpoint of update `start` has."""
    path = directory / files.HEADER
    try:
        return read_signed(path)
    except (FileNotFoundError, DamagedError) as error:
        if not start:
            raise ValueError(
                f"{path} is damaged, and there is no checkpoint to take it from: nothing can be "
                f"restored; remove {directory}, or name another directory."
            ) from error
        warnings.warn(
            f"{path} is damaged; the copy in the checkpoint of update {start} is used.",
            stacklevel=3,
        )
        return header_of(directory, start)


def same_run(header: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two headers are of the same agents: equal config, root and seeds."""
    return all(header.get(name) == other.get(name) for name in ("fingerprint", "root", "seeds"))


def default_directory(config: Config, header: dict[str, Any], suffix: str = "") -> Path:
    """`runs/ENV-ALGORITHM`, numbered from 2 on where another run or a finished one is there."""
    name = f"{env_name(config)}-{config.algorithm.name}{suffix}"
    number = 1
    while True:
        directory = Path("runs") / (name if number == 1 else f"{name}-{number}")
        found = find_header(directory)
        if found is None or (same_run(found, header) and not is_finished(directory, header)):
            return directory
        number += 1


def is_finished(directory: Path, header: dict[str, Any]) -> bool:
    """Whether a directory holds the result of a run, or of a sweep that no signal has stopped."""
    if header["kind"] == "run":
        return (directory / files.SUMMARY).exists()
    try:
        swept = json.loads((directory / files.SWEEP).read_text())
    except (OSError, ValueError):
        return False
    return swept.get("updates") == header["config"]["num_updates"]


def require_same_run(directory: Path, header: dict[str, Any]) -> None:
    """Refuse a directory that holds another run.

    **Raises:** `ValueError` where it does.
    """
    found = find_header(directory)
    if found is None or same_run(found, header):
        return
    named = f"directory = {str(directory)!r} holds another run"
    if not found:
        raise ValueError(f"{named}, whose {files.HEADER} is damaged; name another directory.")
    parts = ("kind", "root", "seeds", "config")
    before, now = ({name: each.get(name) for name in parts} for each in (found, as_json(header)))
    told = list_differences(differences(before, now)) or "the code of its functions"
    raise ValueError(f"{named}, which differs: {told}; name another directory.")
