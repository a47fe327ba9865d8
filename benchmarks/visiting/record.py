"""The one file of a visit: what its stages have found, and the table of it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visiting.stage import SUMMARY, Stage

DONE, CUT, BROKEN, BEGUN = "done", "time ran out", "broken off", "not ended"


def file_of(output: Path, device: str) -> Path:
    """`visit_NVIDIA-H200.json` for a device of that name."""
    return output / f"visit_{re.sub(r'[^A-Za-z0-9]+', '-', device).strip('-') or 'unknown'}.json"


def read_record(path: Path) -> dict[str, Any]:
    """What is there from a call before, or an empty record."""
    return json.loads(path.read_text()) if path.exists() else {"stages": {}, "calls": []}


def is_missing(record: dict[str, Any], stage: Stage) -> bool:
    """Whether a stage, or a part of it, is still to be done."""
    return record["stages"].get(stage.name, {}).get("status") != DONE


def keep(record: dict[str, Any], stage: Stage, status: str, parts: dict[str, Any]) -> None:
    """Put what a stage has found into the record, its failures too."""
    entry = {"number": stage.number, "status": status, "parts": parts}
    stages = record["stages"] | {stage.name: entry}
    record["stages"] = dict(sorted(stages.items(), key=lambda item: item[1]["number"]))


def without_failures(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts that need not be tried again."""
    return {name: part for name, part in parts.items() if "failed" not in part}


def table(record: dict[str, Any], stages: Sequence[Stage]) -> str:
    """A line for each part, and one for each stage that is not done.

    A part that another revision than the last call's has left says so.
    """
    rows, newest = [], record["calls"][-1].get("revision")
    for stage in stages:
        entry = record["stages"].get(stage.name)
        if entry is None:
            rows.append((str(stage.number), stage.name, "not begun"))
            continue
        for name, part in entry["parts"].items():
            rows.append((str(stage.number), f"{stage.name}: {name}", _line(part, newest)))
        if entry["status"] != DONE:
            rows.append((str(stage.number), stage.name, entry["status"]))
    width = max(len(name) for _, name, _ in rows)
    return "\n".join(f"{number:>2}  {name:<{width}}  {line}" for number, name, line in rows)


def points(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of throughput that were measured."""
    parts = [part for stage in record["stages"].values() for part in stage["parts"].values()]
    return [part["point"] for part in parts if "point" in part and not part["point"]["failed"]]


def _line(part: dict[str, Any], newest: str | None) -> str:
    line = str(part.get(SUMMARY, "done"))
    for word in ("skipped", "failed"):
        if word in part:
            line = f"{word}: {part[word]}"
    own = part.get("revision")
    return line if own == newest else f"{line} (of revision {own})"
