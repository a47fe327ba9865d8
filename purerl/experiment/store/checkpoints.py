"""Checkpoints of a run: found, checked by their hashes, restored and removed.

A run directory holds

    checkpoints/UPDATES/                 the states of all agents after so many updates
    checkpoints/UPDATES/states.npz       their leaves by number, or what the first process has
    checkpoints/UPDATES/states.N.npz     what process N has of them
    checkpoints/UPDATES/manifest.json    names and shapes of the leaves, the SHA-256 of every file,
                                         the header, the records
    records/FROM-TO.npz                  what was recorded between two checkpoints

A checkpoint is written as checkpoints/.UPDATES.part, and moved into place when it is whole. The
evaluation after the last one is added to its manifest.
"""

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import PyTree

from purerl.checks import first_line
from purerl.experiment.store import files
from purerl.experiment.store.files import CorruptFileError, read_checked_json, sha256
from purerl.experiment.store.header import complete_header
from purerl.experiment.store.identity import MARK, require_readable, with_defaults
from purerl.experiment.store.leaves import (
    read_leaves,
    read_pieces,
    require_described,
    restore_leaves,
    states_files,
    stored_shapes,
)
from purerl.experiment.store.paths import resume_command, shown
from purerl.experiment.store.records import Records
from purerl.training import TrainState

CHECKPOINTS = "checkpoints"
RECORDS = "records"
MANIFEST = "manifest.json"
CHECKPOINT = re.compile(r"0|[1-9][0-9]*")  # the name of a folder in `CHECKPOINTS`
UNFINISHED = re.compile(r"\.[0-9]+\.part")  # of one that is being written or removed
SEGMENT = re.compile(r"[0-9]{9,}-[0-9]{9,}\.npz")  # of a file in `RECORDS`


class Snapshot(NamedTuple):
    """What a checkpoint holds: a run after `updates` updates."""

    updates: int
    states: TrainState
    records: Records


def latest_checkpoint(directory: Path, *, warn: bool = True) -> int | None:
    """The updates of the newest checkpoint with sound states; None without. Warn of the others."""
    sound, damaged = _examine(directory, records=False)
    if warn:
        _warn_of(directory, damaged)
    return sound


def latest_resumable(directory: Path, force: bool = False) -> int | None:
    """The updates of the newest checkpoint with sound states and records, None without.

    **Raises:** `ValueError` where there are checkpoints, but none is sound: to start from zero, and
    remove them, takes `force`.
    """
    sound, damaged = _examine(directory, records=True)
    finished = [updates for updates in damaged if _is_finished(directory, updates)]
    if sound is None and finished and not force:
        raise ValueError(
            f"directory = {shown(directory)!r} has checkpoints, but none is sound: of update "
            f"{finished[0]}, {damaged[finished[0]]}. Put it back from a copy; to lose them all and "
            f"start from zero: {resume_command(directory, force=True)}."
        )
    _warn_of(directory, damaged)
    return sound


def _examine(directory: Path, *, records: bool) -> tuple[int | None, dict[int, str]]:
    """The newest sound checkpoint, and the damage of each that is newer."""
    damaged = {}
    for updates in list_checkpoints(directory):
        damage = find_damage(directory, updates, records=records)
        if damage is None:
            return updates, damaged
        damaged[updates] = damage
    return None, damaged


def find_damage(directory: Path, updates: int, *, records: bool) -> str | None:
    """The damage of a checkpoint, with or without that of its `records`; None if it is sound."""
    folder = directory / CHECKPOINTS / str(updates)
    try:
        manifest = read_manifest(directory, updates)
        if sorted(manifest["files"]) != files_of(folder):
            return "files are missing or unexpected"
        if not all(map(_is_segment, manifest["records"])):
            return "its records have unexpected names"
        roots = [(folder, manifest["files"])] + [(directory, manifest["records"])] * records
        for root, hashes in roots:
            for name, digest in hashes.items():
                if not (root / name).is_file() or sha256(root / name) != digest:
                    return f"{name} has changed since it was written"
        if not manifest["was_read_back"]:
            for path in states_files(folder):
                read_pieces(path)
    except FileNotFoundError:
        return "it was not written to its end"
    except (CorruptFileError, ValueError) as error:
        return first_line(error)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (KeyError, TypeError, AttributeError):
        return f"its {MANIFEST} is of another format"
    return None


def _is_segment(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder == RECORDS and SEGMENT.fullmatch(file) is not None


def files_of(folder: Path) -> list[str]:
    """The paths of the files in a checkpoint, without its manifest, whole or partly written."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in paths if not _is_manifest(path))


def _is_manifest(name: str) -> bool:
    """Whether a file is the manifest of a checkpoint, or one that was being written."""
    match = files.TEMPORARY.fullmatch(name)
    return name == MANIFEST or (match is not None and match[1] == MANIFEST)


def _warn_of(directory: Path, damaged: dict[int, str]) -> None:
    for updates, damage in damaged.items():
        warnings.warn(
            f"the checkpoint of update {updates} in {shown(directory)} is skipped: {damage}.",
            stacklevel=4,
        )


def has_checkpoints(directory: Path) -> bool:
    """Whether a directory has a checkpoint that was written to its end, even a damaged one."""
    return any(_is_finished(directory, updates) for updates in list_checkpoints(directory))


def list_checkpoints(directory: Path) -> list[int]:
    """The checkpoints that are there, newest first."""
    folder = directory / CHECKPOINTS
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((int(name) for name in names if CHECKPOINT.fullmatch(name)), reverse=True)


def _is_finished(directory: Path, updates: int) -> bool:
    return (directory / CHECKPOINTS / str(updates) / MANIFEST).exists()


def read_manifest(directory: Path, updates: int) -> dict[str, Any]:
    """The hashes of a checkpoint's files, the run's header, and the records up to it.

    **Raises:** `OSError` where it cannot be read, `ValueError` for one of another format,
    `CorruptFileError` where it is damaged.
    """
    path = directory / CHECKPOINTS / str(updates) / MANIFEST
    manifest, what = read_checked_json(path), f"{CHECKPOINTS}/{updates}/{MANIFEST}"
    require_readable(what, manifest)
    return with_defaults(what, "checkpoint", manifest)


def copied_header(directory: Path) -> dict[str, Any] | None:
    """The header in the newest manifest that can be read; None without."""
    for updates in list_checkpoints(directory):
        try:
            header = read_manifest(directory, updates)["header"]
            return complete_header(f"the header in {CHECKPOINTS}/{updates}/{MANIFEST}", header)
        except (OSError, CorruptFileError, ValueError):
            continue
    return None


def restore_snapshot(directory: Path, updates: int, like: TrainState) -> Snapshot:
    """Restore a checkpoint that `latest_resumable` found sound.

    **Arguments:** `like` has the structure, shapes and dtypes of the states.
    """
    states = restore_states(directory, updates, like)
    return Snapshot(updates, states, restore_records(directory, updates))


def restore_states(directory: Path, updates: int, like: PyTree) -> PyTree:
    """Restore the states of a checkpoint that `latest_checkpoint` found sound.

    **Arguments:** `like` has their structure, shapes and dtypes.
    """
    folder = directory / CHECKPOINTS / str(updates)
    require_described(read_manifest(directory, updates)["leaves"], like)
    return restore_leaves(read_leaves(folder, stored_shapes(like)), like)


def restore_records(directory: Path, updates: int) -> Records:
    """Read the records up to a checkpoint, whose files must be as they were written.

    **Raises:** `OSError`, `ValueError` or `CorruptFileError` where they are not.
    """
    records = Records()
    for name, digest in read_manifest(directory, updates)["records"].items():
        if not _is_segment(name) or sha256(directory / name) != digest:
            raise ValueError(f"{name} has changed since it was written")
        arrays = files.read_arrays(directory / name)
        records.append({key: array for key, array in arrays.items() if key != MARK})
    records.take_unsaved()  # all are saved
    return records
