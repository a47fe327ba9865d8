"""How much memory a program needs, and how much there is."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
USABLE_FRACTION = 0.9  # of the memory: the rest is left to other programs


def program_bytes(compiled: Any) -> int:
    """Bytes that a compiled program needs on each device: arguments, results and temporaries."""
    memory = compiled.memory_analysis()
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        - memory.alias_size_in_bytes
    )


def tree_bytes(shapes: PyTree) -> int:
    """Bytes of all arrays of a pytree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def available_bytes(devices: Sequence[Any]) -> int | None:
    """Bytes that a program may use on each of its devices; the devices of a CPU share its memory.

    **Returns:** None where neither the device nor the machine tells.
    """
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(USABLE_FRACTION * stats["bytes_limit"])
    limit = host_bytes()
    return None if limit is None else limit // len(devices)


def host_bytes() -> int | None:
    """Bytes of the host's memory that a program may use; None where the machine does not tell."""
    limits = [limit for limit in (_free_bytes(), _cgroup_headroom()) if limit is not None]
    return int(USABLE_FRACTION * min(limits)) if limits else None


def require_bytes(what: str, needed: int, available: int | None, advice: str) -> None:
    """Refuse what would need more memory than there is."""
    if available is not None and needed > available:
        raise ValueError(
            f"{what} need at least {needed / 1e9:.3g} GB, and there are {available / 1e9:.3g}; "
            f"{advice}."
        )


def parse_bytes(text: str) -> int:
    """`500MB` or `1.5GB` as bytes.

    **Raises:** `ValueError` for anything else.
    """
    match = re.fullmatch(r"([0-9]+\.?[0-9]*) ?(B|kB|MB|GB|TB)", text)
    if match is None or not 0 < float(match[1]) < float("inf"):
        raise ValueError(f"memory_limit = {text!r} cannot be read; write 500MB or 1.5GB.")
    return int(float(match[1]) * UNITS[match[2]])


def _free_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    kibibytes = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return int(kibibytes[0]) * 1024 if kibibytes else None


def _cgroup_headroom(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Bytes that the limits of this process's group, and of those around it, leave."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folders = [root / group, *(root / group).parents]
    headrooms = [_folder_headroom(folder) for folder in folders if folder.is_relative_to(root)]
    return min((headroom for headroom in headrooms if headroom is not None), default=None)


def _folder_headroom(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    # The count includes cached pages of files, which the kernel gives up when memory is needed.
    used -= int(counts.get("inactive_file", 0))
    return None if limit == "max" else max(0, int(limit) - used)
