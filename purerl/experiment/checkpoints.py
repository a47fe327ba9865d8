"""Checkpoints of a run, written by orbax, each with a manifest of hashes that is checked first.

A run directory holds

    checkpoints/UPDATES/                 the states of all agents after so many updates, by orbax
    checkpoints/UPDATES/manifest.json    the SHA-256 of every file of it, the header, the records
    records/FROM-TO.npz                  what was recorded between two checkpoints

A checkpoint counts once its manifest is there, which is written last: what was cut off has none.
"""

import contextlib
import errno
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from purerl.experiment import files
from purerl.experiment.errors import RunError
from purerl.experiment.records import Records
from purerl.experiment.signed import DamagedError, read_signed, sha256, write_signed

CHECKPOINTS = "checkpoints"
RECORDS = "records"
MANIFEST = "manifest.json"


class Checkpoints:
    """Saves the states of a run and what it has recorded, in the background.

    **Arguments:** `keep` checkpoints are kept, the newest; at least 2, so that one is whole while
    another is written.
    """

    def __init__(self, directory: Path, header: dict[str, Any], start: int, *, keep: int = 2):
        self.directory = directory
        self.header = header
        self.last = start
        self.keep = keep
        self._segments = _manifest(directory, start)["records"] if start else {}
        self._manager: Any = None
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def save(self, updates: int, states: PyTree, records: Records) -> None:
        """Save the states after so many updates, and what was recorded since the last time.

        Returns when the states are copied; they are written meanwhile.

        **Raises:** `RunError` where the checkpoint before this could not be written.
        """
        if updates == self.last:
            return
        self.wait()
        name = f"{RECORDS}/{self.last:09d}-{updates:09d}.npz"
        write = (updates, plain(states), name, records.between(self.last, updates))
        self.last = updates
        self._writing = self._writer.submit(self._write, *write)

    def wait(self) -> None:
        """Wait for what is being written.

        **Raises:** `RunError` where it could not be.
        """
        if self._writing is None:
            return
        try:
            self._writing.result()
        except Exception as error:
            raise self._failed(self.last, error) from error

    def close(self) -> None:
        """Wait for what is being written, and let go."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            if self._manager is not None:
                with contextlib.suppress(Exception):  # of a failed save, which `wait` has told
                    self._manager.close()

    def _write(
        self, updates: int, states: PyTree, name: str, recorded: dict[str, np.ndarray]
    ) -> None:
        """Write records, then states, then the manifest: with that the checkpoint counts."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        files.write_arrays(path, recorded)
        ocp = _orbax()
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self.keep, cleanup_tmp_directories=True
            )
            checkpoints = (self.directory / CHECKPOINTS).absolute()
            self._manager = ocp.CheckpointManager(checkpoints, options=options)
        self._manager.save(updates, args=ocp.args.StandardSave(states))
        self._manager.wait_until_finished()
        step = self.directory / CHECKPOINTS / str(updates)
        self._segments = {**self._segments, name: sha256(path)}
        manifest = {
            "updates": updates,
            "header": self.header,
            "records": self._segments,
            "files": {each: sha256(step / each) for each in _files(step)},
        }
        write_signed(step / MANIFEST, manifest)

    def _failed(self, updates: int, error: Exception) -> RunError:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        full = full or "No space left" in str(error) or "File too large" in str(error)
        reason = "the disk is full" if full else (str(error).splitlines() or [repr(error)])[0]
        last = newest(self.directory, warn=False)
        kept = "there is none before it" if last is None else f"that of update {last} stands"
        then = "make room and go on" if full else "go on"
        return RunError(
            f"the checkpoint of update {updates} could not be written: {reason}; {kept}. "
            f"To {then}: purerl resume {self.directory}"
        )


def newest(directory: Path, *, warn: bool = True) -> int | None:
    """The updates of the newest checkpoint that is as it was written; None without one.

    Those that are not are passed over, with a warning each.
    """
    for updates in _found(directory):
        damage = _damage(directory, updates)
        if damage is None:
            return updates
        if warn:
            warnings.warn(
                f"the checkpoint of update {updates} in {directory} is passed over: {damage}.",
                stacklevel=2,
            )
    return None


def header_of(directory: Path, updates: int) -> dict[str, Any]:
    """The header that a checkpoint was saved with."""
    return _manifest(directory, updates)["header"]


def restore(directory: Path, updates: int, like: PyTree) -> PyTree:
    """The states of a checkpoint that `newest` has found sound.

    **Arguments:** `like` has their structure, shapes and dtypes.
    """
    step = (directory / CHECKPOINTS / str(updates)).absolute()
    with _orbax().StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(step / "default", jax.tree.map(_plain_like, like))
    return jax.tree.map(_as, restored, like)


def restore_records(directory: Path, updates: int) -> Records:
    """What was recorded up to a checkpoint."""
    records = Records()
    for name in _manifest(directory, updates)["records"]:
        with np.load(directory / name) as segment:
            records.append(dict(segment))
    return records


def discard_after(directory: Path, updates: int) -> None:
    """Remove the checkpoints and records that come after one, or all where it is 0."""
    for found in _found(directory):
        if found > updates:
            shutil.rmtree(directory / CHECKPOINTS / str(found))
    kept = _manifest(directory, updates)["records"] if updates else {}
    for path in (directory / RECORDS).glob("*"):
        if f"{RECORDS}/{path.name}" not in kept:
            path.unlink()


def _manifest(directory: Path, updates: int) -> dict[str, Any]:
    return read_signed(directory / CHECKPOINTS / str(updates) / MANIFEST)


def plain(states: PyTree) -> PyTree:
    """States as NumPy arrays of their own, typed keys as their numbers."""

    def one(leaf: Any) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(leaf) if is_key else leaf)

    return jax.tree.map(one, states)


def _plain_like(leaf: Any) -> Any:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return np.empty(leaf.shape, leaf.dtype)


def _as(restored: Any, like: Any) -> Any:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(restored)
    return restored


def _found(directory: Path) -> list[int]:
    """The checkpoints that are there, newest first."""
    names = [path.name for path in (directory / CHECKPOINTS).glob("*") if path.is_dir()]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _damage(directory: Path, updates: int) -> str | None:
    """What is wrong with a checkpoint; None where nothing is."""
    step = directory / CHECKPOINTS / str(updates)
    try:
        manifest = read_signed(step / MANIFEST)
    except FileNotFoundError:
        return "it was not written to its end"
    except DamagedError as error:
        return str(error)
    if sorted(manifest["files"]) != _files(step):
        return "files are missing or strange"
    roots = [(step, manifest["files"]), (directory, manifest["records"])]
    for root, hashes in roots:
        for name, digest in hashes.items():
            if not (root / name).is_file() or sha256(root / name) != digest:
                return f"{name} is not as it was written"
    return None


def _files(step: Path) -> list[str]:
    """The files of a checkpoint but for its manifest, by their paths in it."""
    found = (path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file())
    return sorted(name for name in found if name != MANIFEST)


def _orbax() -> Any:
    import orbax.checkpoint  # it takes a second: only where something is saved or restored

    return orbax.checkpoint
