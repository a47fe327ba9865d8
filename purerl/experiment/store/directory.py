"""The directory of a run: chosen, locked, marked with its header, cleared of later files."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from purerl.config.config import Config
from purerl.experiment.hosts import locks
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
    through_json,
)
from purerl.experiment.store.identity import identity_of, require_readable
from purerl.experiment.store.own_files import (
    LOCK,
    discard_after,
    remove_leftovers,
    remove_own,
    require_one_run,
    require_own_names,
)
from purerl.experiment.store.paths import (
    READ_RESULT,
    as_directory,
    resume_command,
    shown,
    train_command,
)
from purerl.experiment.store.spec import RunSpec


def choose_directory(header: dict[str, Any], directory: str | Path | None) -> str:
    """The directory of a run, absolute, `default_directory` if none is given.

    **Raises:** `ValueError` where it is no path, or holds another run or files that training would
    overwrite.
    """
    chosen = as_directory(default_directory(header) if directory is None else directory)
    require_same_run(chosen, header)
    if begun := find_header(chosen):
        require_one_run(chosen, begun, everything=True)
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
    if not other:
        raise ValueError(
            f"directory = {shown(directory)!r} has a {files.HEADER} that is damaged or not "
            f"purerl's; move that away, or name another directory."
        )
    require_readable(f"the {other.get('kind', 'run')} in {shown(directory)!r}", other)
    names, header = ("kind", "root", "seeds", "config"), through_json(header)
    differences = diff(
        {name: other.get(name) for name in names}, {name: header.get(name) for name in names}
    )
    difference = format_diff(differences) or "the shapes of its state"
    raise ValueError(
        f"directory = {shown(directory)!r} holds another {other.get('kind', 'run')}, which "
        f"differs: {difference}; name another directory."
    )


def is_same_run(header: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two headers have equal configs, roots and seeds."""
    names = ("kind", "shapes", "root", "seeds", "config")
    one, two = ({name: each.get(name) for name in names} for each in (header, other))
    return not diff(one, through_json(two))


def is_finished(directory: Path, header: dict[str, Any]) -> bool:
    """Whether a directory holds the result of a run, or of a sweep that trained to its end."""
    if header["kind"] == "run":
        return identity_of(directory / files.SUMMARY) is not None
    try:
        result = read_checked_json(directory / files.SWEEP)
    except (OSError, CorruptFileError):
        return False
    return result.get("updates") == header["config"]["num_updates"]


def require_unused(directory: Path, config: Config) -> None:
    """Refuse a directory with a result or checkpoints: they would be lost."""
    is_finished, has_metrics = (
        identity_of(directory / name) is not None for name in (files.SUMMARY, files.METRICS)
    )
    if has_checkpoints(directory):
        updates = latest_checkpoint(directory, warn=False)
        finished = is_finished or updates == config.num_updates
        position = "" if updates is None else f" at update {updates} of {config.num_updates}"
        status = "is finished" if finished else f"has stopped{position}"
        advice = f"{resume_command(directory)} {'loads it' if finished else 'goes on'}"
    elif is_finished or has_metrics:
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


def read_header(directory: Path, *, everything: bool = False) -> dict[str, Any]:
    """Read the header of a run, or where it is damaged the copy in the newest checkpoint.

    **Arguments:** `everything` looks at all that a run writes for the files of another, and not
    only at what is read.

    **Raises:** `ValueError` where there is no run, or a sweep, or it is of another version of
    purerl, or has files of another run.
    """
    header, path = find_header(directory), shown(directory / files.HEADER)
    what = f"the run in {shown(directory)!r}"
    is_copy = not header
    if not header:
        copy = copied_header(directory)
        if copy is None:
            raise ValueError(_why_there_is_no_run(directory, header))
        warnings.warn(f"{path} is damaged; the copy in the checkpoint is used.", stacklevel=3)
        header = copy
    require_readable(what, header)
    if header.get("kind") != "run":
        raise ValueError(f"{shown(directory)!r} holds a sweep; name the directory of a run.")
    require_one_run(directory, header, everything=everything, is_copy=is_copy)
    return header


def _why_there_is_no_run(directory: Path, header: dict[str, Any] | None) -> str:
    if header is not None:
        return (
            f"{shown(directory / files.HEADER)!r} is damaged or not purerl's, and no checkpoint "
            f"has a copy of it: nothing can be restored; put it back, or name another directory."
        )
    problem = "holds no run" if directory.is_dir() else "is not there"
    if directory.exists() and not directory.is_dir():
        problem = "is no directory"
    return (
        f"{shown(directory)!r} {problem}; name the directory of a run, or start one: "
        f"{train_command(directory)}"
    )


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
        self._descriptor = -1

    def __enter__(self) -> "Lock":
        problem = f"directory = {shown(self.directory)!r} cannot be"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{problem} written: {error.strerror}; name another.") from error
        try:
            descriptor = locks.hold(self.directory / LOCK)
        except OSError as error:
            raise ValueError(f"{problem} locked: {error.strerror}; name another.") from error
        if descriptor is None:
            raise ValueError(
                f"directory = {shown(self.directory)!r} is in use by another run; wait for it, or "
                f"name another directory."
            )
        self._descriptor = descriptor
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)  # this frees the lock


def is_in_use(directory: Path) -> bool:
    """Whether a process works on a run."""
    return locks.is_held(directory / LOCK)
