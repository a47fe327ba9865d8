"""Where and with what a benchmark ran."""

import subprocess
from pathlib import Path
from typing import Any


def surroundings() -> dict[str, Any]:
    """Device, cores, versions, flags and the git revision."""
    # Here: it imports jax, and a visit asks for the revision alone.
    from purerl.measuring.machine import describe_machine

    return describe_machine() | {"revision": revision(Path(__file__).parent)}


def revision(folder: Path) -> str | None:
    """The git revision of a checkout, `-dirty` where it was changed; None where git knows none."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            cwd=folder,
        )
    except OSError:  # without git
        return None
    return described.stdout.strip() or None
