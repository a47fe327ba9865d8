"""How much memory a program needs, and how much there is."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SHARE = 0.9  # of the memory that is there: the rest is for what other programs come to need


def needed(compiled: Any) -> int:
    """Bytes that a compiled program needs on each device: arguments, results and temporaries."""
    memory = compiled.memory_analysis()
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        - memory.alias_size_in_bytes
    )


def size_of(shapes: PyTree) -> int:
    """Bytes of all arrays of a pytree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def available(devices: Sequence[Any]) -> int | None:
    """Bytes that a program may use on each of its devices here; None where nothing says.

    Those of a CPU share the machine's memory.
    """
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"])
    free = [each for each in (_free_memory(), _left_in_cgroups()) if each is not None]
    return int(SHARE * min(free)) // len(devices) if free else None


def parse_bytes(text: str) -> int:
    """`500MB` or `1.5GB` as bytes.

    **Raises:** `ValueError` for anything else.
    """
    match = re.fullmatch(r"([0-9]+\.?[0-9]*) ?(B|kB|MB|GB|TB)", text)
    if match is None or not float(match[1]):
        raise ValueError(f"memory_limit = {text!r} cannot be read; write 500MB or 1.5GB.")
    return int(float(match[1]) * UNITS[match[2]])


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return int(found[0]) * 1024 if found else None


def _left_in_cgroups(
    root: Path = Path("/sys/fs/cgroup"), told: Path = Path("/proc/self/cgroup")
) -> int | None:
    """What this process's group and those around it leave; each may have a limit of its own."""
    try:
        lines = told.read_text().splitlines()
    except OSError:
        lines = []
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folders = [root / group, *(root / group).parents]
    left = [_left_in_cgroup(each) for each in folders if each.is_relative_to(root)]
    return min((each for each in left if each is not None), default=None)


def _left_in_cgroup(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    # Pages of files that nobody reads are counted as used, but given up where memory is wanted.
    used -= int(counts.get("inactive_file", 0))
    return None if limit == "max" else max(0, int(limit) - used)
