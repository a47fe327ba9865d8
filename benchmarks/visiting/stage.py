"""A stage of the visit: its parts, done one after another in a process of its own.

This imports nothing that takes long: the process that starts the stages must not take the device.
"""

import dataclasses
import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SUMMARY = "line"  # the entry of a part's result that the last table shows


class Skipped(Exception):
    """A part has nothing to do here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Context:
    """Where a stage is done, and how much of it."""

    rehearse: bool
    """Tiny sizes on a CPU, and stood-in values where only a GPU has any."""
    scratch: Path
    """A folder for whatever the stage writes."""
    site: Path | None
    """The folder of the packages that `--wheels` has fetched."""
    ends: float
    """By `time.monotonic`, when the stage is stopped."""

    def left(self) -> float:
        """Seconds until the stage is stopped."""
        return self.ends - time.monotonic()

    def pick(self, usual: Any, tiny: Any) -> Any:
        """A size: the usual one, or in a rehearsal a tiny one."""
        return tiny if self.rehearse else usual


@dataclasses.dataclass(frozen=True)
class Part:
    """One result of a stage."""

    name: str
    seconds: float
    """About how long it takes; it is left for later where less time is left."""
    work: Callable[[Context], dict[str, Any]]
    """Returns what is written down; its entry `line` is what the last table shows."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a process of its own does, within its own limit."""

    number: int
    name: str
    limit: float
    """Seconds after which it is stopped, and the part that it was at has failed."""
    parts: Callable[[Context], Sequence[Part]]


def do_stage(stage: Stage, request: dict[str, Any]) -> None:
    """Do the parts that are missing; the answer is written whole after each.

    It has the `parts` that are done, each a result, or an entry `failed` or `skipped`; and the name
    of the part that it is `at`.
    """
    # Here: the process that starts the stages finds no purerl.
    from purerl.experiment.hosts.asking import end_with

    end_with(request["parent"], whole_group=True)
    context = Context(
        rehearse=request["rehearse"],
        scratch=Path(request["scratch"]),
        site=None if request["site"] is None else Path(request["site"]),
        ends=time.monotonic() + request["seconds"],
    )
    answer_file, parts = Path(request["answer"]), dict(request["parts"])

    def write(at: str | None) -> None:
        write_whole(answer_file, {"parts": parts, "at": at})

    left = []
    for part in stage.parts(context):
        if part.name in parts:
            continue
        if not context.rehearse and context.left() < part.seconds:
            left.append(part.name)
            continue
        write(part.name)
        began = time.monotonic()
        try:
            result = part.work(context)
        except Skipped as reason:
            result = {"skipped": str(reason)}
        except Exception as error:
            traceback.print_exc()
            result = {"failed": one_line(error)}
        seconds = round(time.monotonic() - began, 2)
        parts[part.name] = result | {"seconds": seconds, "revision": request["revision"]}
        write(None)
    write_whole(answer_file, {"parts": parts, "at": None, "left": left})


def one_line(error: BaseException) -> str:
    """An error as a line of the table."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)
