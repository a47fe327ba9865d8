"""Checkpoints of a run, written in the background while it trains.

With several processes each writes its share of the states, which orbax brings together; the first
writes the rest, and last the manifest.
"""

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from purerl.experiment.hosts.processes import is_first, is_loss, on_first, several
from purerl.experiment.hosts.stopping import LostError, RunError
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import (
    CHECKPOINTS,
    MANIFEST,
    RECORDS,
    files_of,
    newest,
    read_manifest,
)
from purerl.experiment.store.files import sha256, write_signed
from purerl.experiment.store.orbax import _quiet, orbax, plain
from purerl.experiment.store.records import Records


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
        self._segments = read_manifest(directory, start)["records"] if start else {}
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
        write = (updates, plain(states), name, records.unsaved())
        self.last = updates
        if several():  # what is on the devices is copied before these go on
            try:
                self._begin_states(*write[:2])
            except Exception as error:
                raise self._failed(updates, error) from error
        self._writing = self._writer.submit(self._write, *write)

    def add(self, records: Records) -> None:
        """Add to the last checkpoint what was recorded since.

        **Raises:** `RunError` where it could not be written.
        """
        self.wait()
        on_first(self._add, records)

    def _add(self, records: Records) -> None:
        name = f"{RECORDS}/{self.last:09d}-{self.last:09d}.npz"
        try:
            segments = self._write_records(name, records.unsaved())
            manifest = read_manifest(self.directory, self.last)
            manifest |= {"records": segments, "header": self.header}
            write_signed(self.directory / CHECKPOINTS / str(self.last) / MANIFEST, manifest)
        except Exception as error:
            raise self._failed(self.last, error) from error

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
                # Of a failed save, which `wait` has told.
                with contextlib.suppress(Exception), _quiet():
                    self._manager.close()

    def _write(
        self, updates: int, states: PyTree, name: str, recorded: dict[str, np.ndarray]
    ) -> None:
        """Write records, then states, then the manifest: with that the checkpoint counts."""
        segments = self._write_records(name, recorded) if is_first() else {}
        with _quiet():
            if not several():
                self._begin_states(updates, states)
            self._manager.wait_until_finished()
        if not is_first():
            return
        step = self.directory / CHECKPOINTS / str(updates)
        manifest = {
            "updates": updates,
            "header": self.header,
            "records": segments,
            "files": {each: sha256(step / each) for each in files_of(step)},
        }
        write_signed(step / MANIFEST, manifest)

    def _write_records(self, name: str, recorded: dict[str, np.ndarray]) -> dict[str, str]:
        """Write a segment of records, and return the hashes of all."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        files.write_arrays(path, recorded)
        self._segments = {**self._segments, name: sha256(path)}
        return self._segments

    def _begin_states(self, updates: int, states: PyTree) -> None:
        ocp = orbax()
        if self._manager is None:
            checkpoints = (self.directory / CHECKPOINTS).absolute()
            self._manager = ocp.CheckpointManager(checkpoints, options=self._options(checkpoints))
        self._manager.save(updates, args=ocp.args.StandardSave(states))

    def _options(self, checkpoints: Path) -> Any:
        ocp = orbax()
        keep = {"max_to_keep": self.keep, "cleanup_tmp_directories": True}
        if not several():
            return ocp.CheckpointManagerOptions(**keep)
        on_first(lambda: checkpoints.mkdir(exist_ok=True))
        # With the processes named, they wait for each other through jax's coordination service, and
        # not in a collective, which would meet those of training from another thread.
        everybody = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count()))
        )
        return ocp.CheckpointManagerOptions(**keep, create=False, multiprocessing_options=everybody)

    def _failed(self, updates: int, error: Exception) -> RunError:
        full = files.is_full(error)
        if not full and is_loss(error):
            return LostError("another process has died")
        reason = "the disk is full" if full else (str(error).splitlines() or [repr(error)])[0]
        last = newest(self.directory, warn=False)
        kept = "there is none before it" if last is None else f"that of update {last} stands"
        then = "make room and go on" if full else "go on"
        return RunError(
            f"the checkpoint of update {updates} could not be written: {reason}; {kept}. "
            f"To {then}: purerl resume {self.directory}"
        )
