"""Checkpoints of a run, written in the background while it trains, and read back.

Each process writes its share of the states, and the main process the rest.
"""

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purerl.checks import first_line
from purerl.experiment.hosts.background import Exchange, in_background
from purerl.experiment.hosts.processes import (
    is_lost_process,
    is_main_process,
    is_raised_by_all,
    mark_raised_by_all,
    on_main_process,
)
from purerl.experiment.hosts.stopping import LostProcessError, RunError
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import (
    CHECKPOINTS,
    MANIFEST,
    RECORDS,
    Snapshot,
    latest_checkpoint,
    list_checkpoints,
    read_manifest,
)
from purerl.experiment.store.files import sha256, write_checked_json
from purerl.experiment.store.identity import Identity
from purerl.experiment.store.leaves import (
    Piece,
    describe_leaves,
    first_difference,
    own_pieces,
    read_leaves,
    states_name,
    stored_shapes,
    write_pieces,
)
from purerl.experiment.store.own_files import remove_checkpoint
from purerl.experiment.store.paths import resume_command
from purerl.experiment.store.records import Records


class _Saved(NamedTuple):
    """What is written of a snapshot: pieces of its leaves, all their shapes, the new records."""

    updates: int
    pieces: list[Piece]
    shapes: list[Any]
    described: list[list[Any]]
    segment: str
    records: dict[str, np.ndarray]
    verify: bool


class CheckpointWriter:
    """Saves the states and the records of a run in the background.

    The first checkpoint of a process is restored, and compared leaf by leaf with what was saved; of
    later ones the bytes are read back and hashed.

    **Arguments:** the newest `keep` checkpoints are kept, at least 2: one is whole while another is
    written.
    """

    def __init__(self, directory: Path, header: dict[str, Any], start: int, *, keep: int = 2):
        self.directory = directory
        self.header = header
        self.identity = Identity.of(header)
        self.last_updates = start
        self.keep = keep
        self._segments = read_manifest(directory, start)["records"] if start else {}
        self._exchange = Exchange()
        self._has_restored = False
        self._writing: Future[None] | None = None

    def save(self, snapshot: Snapshot, *, verify: bool = True) -> None:
        """Copy a snapshot, and write it in the background, with the records that are new.

        **Arguments:** without `verify` there is no time for that; whoever resumes does it.

        **Raises:** `RunError` where the checkpoint before this could not be written.
        """
        updates = snapshot.updates
        if updates == self.last_updates:
            return
        self.wait()
        saved = _Saved(
            updates=updates,
            pieces=own_pieces(snapshot.states),
            shapes=stored_shapes(snapshot.states),
            described=describe_leaves(snapshot.states),
            segment=f"{RECORDS}/{self.last_updates:09d}-{updates:09d}.npz",
            records=snapshot.records.take_unsaved(),
            verify=verify,
        )
        self.last_updates = updates
        with self._explaining_failure():
            on_main_process(self._make_folder, updates)
        self._writing = in_background(self._write, saved)

    def add(self, records: Records) -> None:
        """Add the records that are new to the last checkpoint.

        **Raises:** `RunError` where they could not be written.
        """
        self.wait()
        on_main_process(self._add, records)

    def _add(self, records: Records) -> None:
        name = f"{RECORDS}/{self.last_updates:09d}-{self.last_updates:09d}.npz"
        with self._explaining_failure():
            segments = self._write_records(name, records.take_unsaved(), verify=True)
            manifest = read_manifest(self.directory, self.last_updates)
            manifest |= {"records": segments, "header": self.header, **self.identity._asdict()}
            folder = self.directory / CHECKPOINTS / str(self.last_updates)
            write_checked_json(folder / MANIFEST, manifest)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        **Raises:** `RunError` where it could not be written.
        """
        if self._writing is not None:
            with self._explaining_failure():
                self._writing.result()

    def _write(self, saved: _Saved) -> None:
        """Write the states and the rest, and move the whole checkpoint into place."""
        folder = self._unfinished(saved.updates)
        try:
            digests = self._exchange.call_in_all(_write_states, folder, self.identity, saved)
            if saved.verify and not self._has_restored:
                self._exchange.call_in_all(_require_restored, folder, saved)
                self._has_restored = True
            self._exchange.call_in_all(self._complete, folder, saved, digests)
        except BaseException:
            if is_main_process():  # on a full disk, it leaves room
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _complete(self, folder: Path, saved: _Saved, digests: list[str]) -> None:
        """Write what the main process writes, last the manifest; remove checkpoints that are old.

        **Arguments:** `digests` are those of the states' files, by process.
        """
        if not is_main_process():
            return
        manifest = {
            **self.identity._asdict(),
            "updates": saved.updates,
            "header": self.header,
            "leaves": saved.described,
            "records": self._write_records(saved.segment, saved.records, saved.verify),
            "files": {states_name(process): digest for process, digest in enumerate(digests)},
            "was_read_back": saved.verify,
        }
        write_checked_json(folder / MANIFEST, manifest)
        folder.rename(folder.with_name(str(saved.updates)))
        kept = [updates for updates in list_checkpoints(self.directory) if updates <= saved.updates]
        for updates in kept[self.keep :]:
            remove_checkpoint(self.directory, updates)

    def _unfinished(self, updates: int) -> Path:
        return self.directory / CHECKPOINTS / f".{updates}.part"

    def _make_folder(self, updates: int) -> None:
        folder = self._unfinished(updates)
        folder.parent.mkdir(exist_ok=True)
        folder.mkdir()  # a new one

    def _write_records(
        self, name: str, records: dict[str, np.ndarray], verify: bool
    ) -> dict[str, str]:
        """Write a segment of records, and return the hashes of all segments."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        digest = files.write_arrays(path, {**self.identity.arrays(), **records})
        if verify:
            _require_digest(path, digest)
        self._segments = {**self._segments, name: digest}
        return self._segments

    @contextlib.contextmanager
    def _explaining_failure(self) -> Iterator[None]:
        """Raise `RunError` where the last checkpoint cannot be written."""
        try:
            yield
        except Exception as error:
            is_full = files.is_disk_full(error)
            if not is_full and is_lost_process(error):
                raise LostProcessError("another process has died") from error
            if not self.directory.is_dir():
                raise RunError(
                    f"{self.directory} is not there any more: it was removed while the run trained"
                ) from error
            reason = "the disk is full" if is_full else first_line(error)
            last = latest_checkpoint(self.directory, warn=False)
            kept = "there is none before it" if last is None else f"that of update {last} stands"
            action = "make room and go on" if is_full else "go on"
            problem = RunError(
                f"the checkpoint of update {self.last_updates} could not be written: {reason}; "
                f"{kept}. To {action}: {resume_command(self.directory)}"
            )
            raise (mark_raised_by_all(problem) if is_raised_by_all(error) else problem) from error


def _write_states(folder: Path, identity: Identity, saved: _Saved) -> str:
    """Write what this process holds; return the SHA-256 of the file."""
    path = folder / states_name(jax.process_index())
    digest = write_pieces(path, identity, saved.pieces)
    if saved.verify:
        _require_digest(path, digest)
    return digest


def _require_restored(folder: Path, saved: _Saved) -> None:
    """Restore the states, and compare them with what this process held."""
    different = first_difference(read_leaves(folder, saved.shapes), saved.pieces)
    if different is not None:
        name = saved.described[different][0]
        raise ValueError(f"the array {name} does not read back as it was written")


def _require_digest(path: Path, digest: str) -> None:
    if sha256(path) != digest:
        raise ValueError(f"{path.name} does not read back as it was written")
