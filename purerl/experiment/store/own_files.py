"""What in a directory is a run's own, by name and by content: nothing else is lost or overwritten.

Links that lie in a run directory are never its own, and nothing is removed or written through them.
"""

import contextlib
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import (
    CHECKPOINT,
    CHECKPOINTS,
    MANIFEST,
    RECORDS,
    SEGMENT,
    UNFINISHED,
    copied_header,
    list_checkpoints,
    read_manifest,
)
from purerl.experiment.store.files import CorruptFileError
from purerl.experiment.store.identity import FORMAT, Identity, identity_of
from purerl.experiment.store.leaves import STATES, states_files
from purerl.experiment.store.paths import shown

LOCK = ".lock"
RESULTS = (files.METRICS, files.SUMMARY, files.SWEEP)
FIGURES = ("learning_curve.png", "returns.png", "sweep.png")
FOLDERS = (CHECKPOINTS, RECORDS)
# By logger: the argument that names another place, and what is written without it.
LOGS = {
    "jsonl": ("path", "metrics.jsonl"),
    "tensorboard": ("directory", "tensorboard"),
    "wandb": (None, "wandb.json"),
}
BOARD = "purerl.json"  # in a directory of TensorBoard: whose it is


def require_own_names(directory: Path, hooks: Sequence[Any] = (), start: int = 0) -> None:
    """Refuse a directory where a name that a run writes is taken by what no run wrote.

    **Arguments:** `hooks` as `describe_hooks` describes them; the run goes on after `start`
    updates.

    **Raises:** `ValueError` that names it.
    """
    found = itertools.chain(_strange_files(directory, hooks), _strange_entries(directory, start))
    strange = next(found, None)
    if strange is not None:
        path, problem = strange
        raise ValueError(
            f"directory = {shown(directory)!r} has {str(path.relative_to(directory))!r}, which "
            f"{'is a link' if path.is_symlink() else problem}, and a run writes there: move that "
            f"away, or name another directory."
        )


def _strange_files(directory: Path, hooks: Sequence[Any]) -> Iterator[tuple[Path, str]]:
    """Files that are in a run's way, each with the reason why they are not its own."""
    is_run = is_run_directory(directory)
    for name in (files.HEADER, LOCK, *RESULTS, *FIGURES, *_log_files(hooks)):
        path = directory / name
        if os.path.lexists(path) and not _is_own(path, is_run):
            yield path, "purerl did not write" if is_run else "is there already"


def _strange_entries(directory: Path, start: int) -> Iterator[tuple[Path, str]]:
    """The same of checkpoints and records."""
    is_run = is_run_directory(directory)
    for folder in (directory / name for name in FOLDERS):
        if os.path.lexists(folder) and not _is_folder(folder):
            yield folder, "is no folder"
        elif folder.is_dir():
            for entry in filter(_is_written_name, sorted(folder.iterdir())):
                if not (is_run and is_own_entry(entry)):
                    yield entry, "purerl did not write" if is_run else "is there already"
                elif CHECKPOINT.fullmatch(entry.name) and int(entry.name) > start:
                    strange = next(_strange_parts(entry), None)
                    if strange is not None:
                        yield strange, "purerl did not write"


def _log_files(hooks: Sequence[Any]) -> list[str]:
    """What loggers write into the run directory; a stranger's header may describe anything."""
    described = [hook for hook in hooks if isinstance(hook, dict)]
    pairs = [(LOGS.get(str(hook.get("logger"))), hook.get("arguments")) for hook in described]
    known = [(log, given) for log, given in pairs if log and isinstance(given, dict)]
    return [name for (argument, name), given in known if given.get(argument) is None]


def _is_own(path: Path, is_run: bool) -> bool:
    """Whether a file is the run's, or is empty: then there is nothing to lose."""
    if _is_folder(path):
        return is_run and path.name == LOGS["tensorboard"][1]
    return is_regular(path) and (
        path.stat().st_size == 0 or path.name == LOCK or (is_run and begins_as_own(path))
    )


def _is_written_name(path: Path) -> bool:
    patterns = (CHECKPOINT, UNFINISHED) if path.parent.name == CHECKPOINTS else (SEGMENT,)
    return any(pattern.fullmatch(path.name) for pattern in patterns)


def is_own_entry(path: Path) -> bool:
    """Whether an entry of `checkpoints/` or `records/` is a run's, by its name and its content."""
    if not _is_written_name(path):
        return False
    if path.parent.name == RECORDS:
        return is_regular(path) and begins_as_own(path)
    return _is_own_unfinished(path) if UNFINISHED.fullmatch(path.name) else _is_checkpoint(path)


def _is_own_unfinished(folder: Path) -> bool:
    """Whether a checkpoint that was not written or removed to its end has only a run's names."""
    return _is_folder(folder) and next(_strange_parts(folder), None) is None


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder has a manifest of its own, or where that is damaged states of a run."""
    if not _is_folder(folder):
        return False
    try:
        return read_manifest(folder.parent.parent, int(folder.name))["updates"] == int(folder.name)
    except (OSError, CorruptFileError, ValueError):
        states = states_files(folder)
        return bool(states) and all(is_regular(path) and begins_as_own(path) for path in states)


def _strange_parts(folder: Path) -> Iterator[Path]:
    """What lies in a checkpoint and is no part of it."""
    return (path for path in folder.iterdir() if not _is_part(path))


def _is_part(path: Path) -> bool:
    """Whether an entry of a checkpoint has a name that a run gives."""
    match = files.TEMPORARY.fullmatch(path.name)
    name = path.name if match is None else match[1]
    return name == MANIFEST or STATES.fullmatch(name) is not None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def is_regular(path: Path) -> bool:
    """Whether a path is a file and no link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def begins_as_own(path: Path) -> bool:
    """Whether a file begins as those that a run writes, or is empty; it may be damaged after."""
    return path.stat().st_size == 0 or identity_of(path) is not None


def require_one_run(
    directory: Path, header: dict[str, Any], *, everything: bool = False, is_copy: bool = False
) -> None:
    """Refuse a directory in which another run's file has a name of this run's.

    What is read of a run is looked at; with `everything`, what it writes. Where the header is the
    copy in a checkpoint, files may have been written when the run had gone on once more.

    **Raises:** `ValueError` that says which file is whose.
    """
    own = Identity.of(header)
    for path in _named_as_own(directory, everything):
        other = identity_of(path)
        is_known = is_copy or (other is not None and other.resumptions <= own.resumptions)
        if other is None or (other.run == own.run and is_known):
            continue
        name, header_name = str(path.relative_to(directory)), files.HEADER
        if other.run == own.run:
            raise ValueError(
                f"{shown(directory)!r} has files of two copies of one run: {name!r} was written "
                f"when it had gone on {other.resumptions} times, {header_name!r} when it had "
                f"{own.resumptions} times; put back the files of one of them."
            )
        raise ValueError(
            f"{shown(directory)!r} has files of two runs: {name!r} is of run {other.run}, "
            f"{header_name!r} of run {own.run}; put each run into a directory of its own."
        )


def _named_as_own(directory: Path, everything: bool) -> Iterator[Path]:
    """The files with names that a run reads, or writes."""
    yield from (directory / name for name in (files.SUMMARY, files.METRICS))
    for folder in map(str, list_checkpoints(directory)):
        yield directory / CHECKPOINTS / folder / MANIFEST
        with contextlib.suppress(FileNotFoundError):  # training may have removed it
            yield from states_files(directory / CHECKPOINTS / folder)
    if everything:
        board = f"{LOGS['tensorboard'][1]}/{BOARD}"
        names = (files.SWEEP, *FIGURES, board, *(name for _, name in LOGS.values()))
        yield from (directory / name for name in names)
        if _is_folder(directory / RECORDS):
            yield from filter(_is_written_name, sorted((directory / RECORDS).iterdir()))


def identity_begun(directory: Path) -> Identity:
    """The identity of the run that has begun in a directory; a new one where none has."""
    begun = identity_of(directory / files.HEADER)
    return Identity.new() if begun is None else begun._replace(format=FORMAT)


def is_run_directory(directory: Path) -> bool:
    """Whether a run or a sweep wrote a directory: by its header, or the copy in a checkpoint."""
    header = directory / files.HEADER
    if header.is_file() and header.stat().st_size and begins_as_own(header):
        return True
    return copied_header(directory) is not None


def remove_own(path: Path) -> None:
    """Remove a file if it is a run's."""
    if is_regular(path) and begins_as_own(path):
        path.unlink()


def remove_checkpoint(directory: Path, updates: int) -> None:
    """Remove a checkpoint if all of it is a run's, first its name: it no longer counts as whole."""
    folder = directory / CHECKPOINTS / str(updates)
    if is_own_entry(folder) and next(_strange_parts(folder), None) is None:
        leftover = folder.with_name(f".{updates}.part")
        folder.rename(leftover)
        shutil.rmtree(leftover)


def remove_leftovers(directory: Path) -> None:
    """Remove what processes that were killed had begun to write, or to remove."""
    names = (files.HEADER, *RESULTS, *FIGURES)
    files.remove_temporaries(directory, names)
    if _is_folder(directory / RECORDS):
        segments = [path.name for path in (directory / RECORDS).iterdir()]
        matches = filter(None, map(files.TEMPORARY.fullmatch, segments))
        begun = [match[1] for match in matches if SEGMENT.fullmatch(match[1])]
        files.remove_temporaries(directory / RECORDS, begun)
    if _is_folder(directory / CHECKPOINTS):
        for path in (directory / CHECKPOINTS).iterdir():
            if UNFINISHED.fullmatch(path.name) and is_own_entry(path):
                shutil.rmtree(path)


def discard_after(directory: Path, updates: int) -> None:
    """Remove the checkpoints and records of a run after one, or all where `updates` is 0."""
    kept = read_manifest(directory, updates)["records"] if updates else {}
    for path in (directory / CHECKPOINTS).iterdir():
        if CHECKPOINT.fullmatch(path.name) and int(path.name) > updates:
            remove_checkpoint(directory, int(path.name))
    for path in (directory / RECORDS).iterdir():
        if f"{RECORDS}/{path.name}" not in kept and is_own_entry(path):
            path.unlink()


def require_writable(name: str, path: Path) -> None:
    """Refuse a file that cannot be written or is a run's own, before its content is computed."""
    try:
        if path.is_dir():
            raise ValueError("it is a directory")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if belongs_to_run(path):
            raise ValueError("it is a run's own file")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{name} = {str(path)!r} cannot be written: {reason}; name another file."
        ) from error


def belongs_to_run(path: Path) -> bool:
    """Whether a path is that of a file which a run writes into its directory."""
    path = path.parent.resolve() / path.name
    own = (files.HEADER, LOCK, *RESULTS, *FIGURES, *(name for _, name in LOGS.values()), *FOLDERS)
    return any(
        path.relative_to(parent).parts[0] in own and is_run_directory(parent)
        for parent in path.parents
    )
