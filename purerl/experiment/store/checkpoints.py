"""Checkpoints of a run: found, checked by their hashes, restored and removed.

A run directory holds

    checkpoints/UPDATES/                 the states of all agents after so many updates, by orbax
    checkpoints/UPDATES/manifest.json    the SHA-256 of every file of it, the header, the records
    records/FROM-TO.npz                  what was recorded between two checkpoints

A checkpoint counts once its manifest is there, which is written last. The evaluation after the
last one is added to its manifest.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from purerl.experiment.store import files
from purerl.experiment.store.files import CorruptFileError, read_checked_json, sha256
from purerl.experiment.store.orbax import from_saveable, import_orbax, restore_template
from purerl.experiment.store.records import Records
from purerl.training import TrainState

CHECKPOINTS = "checkpoints"
RECORDS = "records"
MANIFEST = "manifest.json"


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
            f"directory = {str(directory)!r} has checkpoints, but none is sound: of update "
            f"{finished[0]}, {damaged[finished[0]]}. Put it back from a copy; to lose them all and "
            f"start from zero, use --force."
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
        manifest = read_checked_json(folder / MANIFEST)
        if sorted(manifest["files"]) != files_of(folder):
            return "files are missing or unexpected"
        roots = [(folder, manifest["files"])] + [(directory, manifest["records"])] * records
        for root, hashes in roots:
            for name, digest in hashes.items():
                if not (root / name).is_file() or sha256(root / name) != digest:
                    return f"{name} has changed since it was written"
    except FileNotFoundError:
        return "it was not written to its end"
    except CorruptFileError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return None


def files_of(folder: Path) -> list[str]:
    """The paths of the files in a checkpoint, without its manifest, whole or partly written."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in paths if path not in (MANIFEST, MANIFEST + files.PART))


def _warn_of(directory: Path, damaged: dict[int, str]) -> None:
    for updates, damage in damaged.items():
        warnings.warn(
            f"the checkpoint of update {updates} in {directory} is skipped: {damage}.",
            stacklevel=4,
        )


def has_checkpoints(directory: Path) -> bool:
    """Whether a directory has a checkpoint that was written to its end, even a damaged one."""
    return any(_is_finished(directory, updates) for updates in list_checkpoints(directory))


def list_checkpoints(directory: Path) -> list[int]:
    """The checkpoints that are there, newest first."""
    names = [path.name for path in (directory / CHECKPOINTS).glob("*") if path.is_dir()]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _is_finished(directory: Path, updates: int) -> bool:
    return (directory / CHECKPOINTS / str(updates) / MANIFEST).exists()


def read_manifest(directory: Path, updates: int) -> dict[str, Any]:
    """The hashes of a checkpoint's files, the run's header, and the records up to it."""
    return read_checked_json(directory / CHECKPOINTS / str(updates) / MANIFEST)


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
    folder = (directory / CHECKPOINTS / str(updates)).absolute()
    with import_orbax().StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(folder / "default", jax.tree.map(restore_template, like))
    return jax.tree.map(from_saveable, restored, like, is_leaf=lambda leaf: leaf is None)


def restore_records(directory: Path, updates: int) -> Records:
    """Read the records up to a checkpoint."""
    records = Records()
    for name in read_manifest(directory, updates)["records"]:
        records.append(files.read_arrays(directory / name))
    records.take_unsaved()  # all are saved
    return records


def discard_after(directory: Path, updates: int) -> None:
    """Remove the checkpoints and records after one, or all where `updates` is 0."""
    for later in list_checkpoints(directory):
        if later > updates:
            shutil.rmtree(directory / CHECKPOINTS / str(later))
    kept = read_manifest(directory, updates)["records"] if updates else {}
    for path in (directory / RECORDS).glob("*"):
        if f"{RECORDS}/{path.name}" not in kept:
            path.unlink()
