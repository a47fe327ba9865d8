"""Checkpoints of a run, as orbax has written them: each has hashes, which are checked first.

A run directory holds

    checkpoints/UPDATES/                 the states of all agents after so many updates, by orbax
    checkpoints/UPDATES/manifest.json    the SHA-256 of every file of it, the header, the records
    records/FROM-TO.npz                  what was recorded between two checkpoints

A checkpoint counts once its manifest is there, which is written last: what was cut off has none.
The evaluation after the last one is added to its manifest.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from purerl.experiment.store import files
from purerl.experiment.store.files import DamagedError, read_signed, sha256
from purerl.experiment.store.orbax import _as, _plain_like, orbax
from purerl.experiment.store.records import Records

CHECKPOINTS = "checkpoints"
RECORDS = "records"
MANIFEST = "manifest.json"


def newest(directory: Path, *, warn: bool = True) -> int | None:
    """The updates of the newest checkpoint whose states are as they were written; None without one.

    Those that are not are passed over, with a warning each.
    """
    sound, damaged = _examine(directory, records=False)
    if warn:
        _warn_of(directory, damaged)
    return sound


def newest_whole(directory: Path, force: bool = False) -> int | None:
    """The newest checkpoint of which states and records are as they were written, to go on from.

    None where there is none: nothing was saved before the run died.

    **Raises:** `ValueError` where something was saved, but nothing is sound, unless `force` is
    given: to start from zero would remove it.
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


def has_checkpoints(directory: Path) -> bool:
    """Whether a directory has a checkpoint that was written to its end, sound or not."""
    return any(_is_finished(directory, updates) for updates in found(directory))


def _examine(directory: Path, *, records: bool) -> tuple[int | None, dict[int, str]]:
    """The newest sound checkpoint, and what is wrong with those that are newer."""
    damaged = {}
    for updates in found(directory):
        wrong = damage(directory, updates, records=records)
        if wrong is None:
            return updates, damaged
        damaged[updates] = wrong
    return None, damaged


def _warn_of(directory: Path, damaged: dict[int, str]) -> None:
    for updates, wrong in damaged.items():
        warnings.warn(
            f"the checkpoint of update {updates} in {directory} is passed over: {wrong}.",
            stacklevel=4,
        )


def _is_finished(directory: Path, updates: int) -> bool:
    return (directory / CHECKPOINTS / str(updates) / MANIFEST).exists()


def header_of(directory: Path, updates: int) -> dict[str, Any]:
    """The header that a checkpoint was saved with."""
    return read_manifest(directory, updates)["header"]


def restore(directory: Path, updates: int, like: PyTree) -> PyTree:
    """The states of a checkpoint that `newest` has found sound.

    **Arguments:** `like` has their structure, shapes and dtypes.
    """
    step = (directory / CHECKPOINTS / str(updates)).absolute()
    with orbax().StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(step / "default", jax.tree.map(_plain_like, like))
    return jax.tree.map(_as, restored, like, is_leaf=lambda leaf: leaf is None)


def restore_records(directory: Path, updates: int) -> Records:
    """What was recorded up to a checkpoint."""
    records = Records()
    for name in read_manifest(directory, updates)["records"]:
        with np.load(directory / name) as segment:
            records.append(dict(segment))
    records.unsaved()  # it is all there
    return records


def discard_after(directory: Path, updates: int) -> None:
    """Remove the checkpoints and records that come after one, or all where it is 0."""
    for later in found(directory):
        if later > updates:
            shutil.rmtree(directory / CHECKPOINTS / str(later))
    kept = read_manifest(directory, updates)["records"] if updates else {}
    for path in (directory / RECORDS).glob("*"):
        if f"{RECORDS}/{path.name}" not in kept:
            path.unlink()


def read_manifest(directory: Path, updates: int) -> dict[str, Any]:
    """The manifest of a checkpoint."""
    return read_signed(directory / CHECKPOINTS / str(updates) / MANIFEST)


def found(directory: Path) -> list[int]:
    """The checkpoints that are there, newest first."""
    names = [path.name for path in (directory / CHECKPOINTS).glob("*") if path.is_dir()]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def damage(directory: Path, updates: int, *, records: bool) -> str | None:
    """What is wrong with a checkpoint, with its `records` or but for them; None if nothing is."""
    step = directory / CHECKPOINTS / str(updates)
    try:
        manifest = read_signed(step / MANIFEST)
        if sorted(manifest["files"]) != files_of(step):
            return "files are missing or strange"
        roots = [(step, manifest["files"])] + [(directory, manifest["records"])] * records
        for root, hashes in roots:
            for name, digest in hashes.items():
                if not (root / name).is_file() or sha256(root / name) != digest:
                    return f"{name} is not as it was written"
    except FileNotFoundError:
        return "it was not written to its end"
    except DamagedError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return None


def files_of(step: Path) -> list[str]:
    """The files of a checkpoint but for its manifest, by their paths in it.

    That may be written anew: what is left of it where that was cut off is none of them either.
    """
    found = (path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in (MANIFEST, MANIFEST + files.PART))
