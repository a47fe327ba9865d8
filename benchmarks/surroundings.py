"""Where and with what a benchmark ran."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import purerl
from purerl.experiment.hosts.startup import count_cores


def surroundings() -> dict[str, Any]:
    """Device, cores, versions and the git revision."""
    return {
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": count_cores(),
        "processor": _processor(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "purerl": purerl.__version__,
        "revision": revision(Path(__file__).parent),
    }


def revision(folder: Path) -> str | None:
    """The git revision of a checkout, `-dirty` where it was changed; None where git knows none."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    return described.stdout.strip() or None


def _processor() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None
