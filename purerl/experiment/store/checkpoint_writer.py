"""Checkpoints of a run, written in the background while it trains.

Each process writes its share of the states with orbax. The main process writes the rest.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from purerl.checks import first_line
from purerl.experiment.hosts.background import in_background
from purerl.experiment.hosts.processes import (
    is_lost_process,
    is_main_process,
    is_multi_process,
    on_main_process,
)
from purerl.experiment.hosts.stopping import LostProcessError, RunError
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import (
    CHECKPOINTS,
    MANIFEST,
    RECORDS,
    Snapshot,
    files_of,
    latest_checkpoint,
    read_manifest,
)
from purerl.experiment.store.files import sha256, write_checked_json
from purerl.experiment.store.orbax import import_orbax, quiet_orbax, to_saveable
from purerl.experiment.store.records import Records


class CheckpointWriter:
    """Saves the states and the records of a run in the background.

    **Arguments:** the newest `keep` checkpoints are kept, at least 2: one is whole while another is
    written.
    """

    def __init__(self, directory: Path, header: dict[str, Any], start: int, *, keep: int = 2):
        self.directory = directory
        self.header = header
        self.last_updates = start
        self.keep = keep
        self._segments = read_manifest(directory, start)["records"] if start else {}
        self._manager: Any = None
        self._writing: Future[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Copy a snapshot, and write it in the background, with the records that are new.

        **Raises:** `RunError` where the checkpoint before this could not be written.
        """
        updates = snapshot.updates
        if updates == self.last_updates:
            return
        self.wait()
        name = f"{RECORDS}/{self.last_updates:09d}-{updates:09d}.npz"
        states, records = to_saveable(snapshot.states), snapshot.records.take_unsaved()
        self.last_updates = updates
        if is_multi_process():  # copy the states before training changes them on the devices
            with self._explaining_failure():
                self._begin_states(updates, states)
        self._writing = in_background(self._write, updates, states, name, records)

    def add(self, records: Records) -> None:
        """Add the records that are new to the last checkpoint.

        **Raises:** `RunError` where they could not be written.
        """
        self.wait()
        on_main_process(self._add, records)

    def _add(self, records: Records) -> None:
        name = f"{RECORDS}/{self.last_updates:09d}-{self.last_updates:09d}.npz"
        with self._explaining_failure():
            segments = self._write_records(name, records.take_unsaved())
            manifest = read_manifest(self.directory, self.last_updates)
            manifest |= {"records": segments, "header": self.header}
            folder = self.directory / CHECKPOINTS / str(self.last_updates)
            write_checked_json(folder / MANIFEST, manifest)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        **Raises:** `RunError` where it could not be written.
        """
        if self._writing is not None:
            with self._explaining_failure():
                self._writing.result()

    def close(self) -> None:
        """Wait for the checkpoint that is being written, and end the writer."""
        try:
            self.wait()
        finally:
            if self._manager is not None:
                # It raises the error of a failed save again.
                with contextlib.suppress(Exception), quiet_orbax():
                    self._manager.close()

    def _write(
        self, updates: int, states: PyTree, name: str, records: dict[str, np.ndarray]
    ) -> None:
        """Write records, states, and last the manifest, with which the checkpoint counts."""
        segments = self._write_records(name, records) if is_main_process() else {}
        with quiet_orbax():
            if not is_multi_process():
                self._begin_states(updates, states)
            self._manager.wait_until_finished()
        if not is_main_process():
            return
        folder = self.directory / CHECKPOINTS / str(updates)
        manifest = {
            "updates": updates,
            "header": self.header,
            "records": segments,
            "files": {path: sha256(folder / path) for path in files_of(folder)},
        }
        write_checked_json(folder / MANIFEST, manifest)

    def _write_records(self, name: str, records: dict[str, np.ndarray]) -> dict[str, str]:
        """Write a segment of records, and return the hashes of all segments."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        files.write_arrays(path, records)
        self._segments = {**self._segments, name: sha256(path)}
        return self._segments

    def _begin_states(self, updates: int, states: PyTree) -> None:
        ocp = import_orbax()
        if self._manager is None:
            checkpoints = (self.directory / CHECKPOINTS).absolute()
            self._manager = ocp.CheckpointManager(checkpoints, options=self._options(checkpoints))
        self._manager.save(updates, args=ocp.args.StandardSave(states))

    def _options(self, checkpoints: Path) -> Any:
        ocp = import_orbax()
        keep = {"max_to_keep": self.keep, "cleanup_tmp_directories": True}
        if not is_multi_process():
            return ocp.CheckpointManagerOptions(**keep)
        on_main_process(lambda: checkpoints.mkdir(exist_ok=True))
        # With named processes, orbax waits through jax's coordination service and not in a
        # collective, which would collide with those of training.
        active = set(range(jax.process_count()))
        processes = ocp.options.MultiprocessingOptions(active_processes=active)
        return ocp.CheckpointManagerOptions(**keep, create=False, multiprocessing_options=processes)

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
            raise RunError(
                f"the checkpoint of update {self.last_updates} could not be written: {reason}; "
                f"{kept}. To {action}: purerl resume {self.directory}"
            ) from error
