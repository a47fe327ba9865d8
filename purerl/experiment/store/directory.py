"""The directory of a run: claimed, made room in, and given the result.

With several processes the first does it, and all hear of what goes wrong.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from purerl.config.config import Config
from purerl.experiment.hosts.errors import RunError
from purerl.experiment.hosts.processes import is_first, on_first
from purerl.experiment.report.run_result import Run, write_result
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import discard_after, has_checkpoints, newest
from purerl.experiment.store.header import default_directory, require_same_run
from purerl.experiment.store.records import Records
from purerl.experiment.store.signed import write_signed
from purerl.experiment.store.spec import RunPlan


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


def write_run(result: Run, records: Records) -> None:
    """Write the result of a run.

    **Raises:** `RunError` where it cannot be written.
    """
    then = f"Make room and write it again: purerl resume {result.directory}"

    def write() -> None:
        with written("the result could not be written", f"; the last checkpoint stands. {then}"):
            write_result(result, records)

    on_first(write)


@contextlib.contextmanager
def written(what: str, then: str = ".") -> Iterator[None]:
    """Say in one line what could not be written, and why.

    **Raises:** `RunError` then.
    """
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if files.is_full(error) else error.strerror or error
        raise RunError(f"{what}: {reason}{then}") from error
