"""Where a measurement was made, and with what."""

import contextlib
import os
import platform
import re
import resource
import sys
from pathlib import Path
from typing import Any

import jax

from purerl import __version__
from purerl.experiment.hosts.startup import count_cores, describe_cpu


def describe_machine() -> dict[str, Any]:
    """Device, cores, versions, and the flags of the compiler."""
    return {
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": count_cores(),
        "processor": describe_cpu()["model"],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "purerl": __version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def peak_device_bytes(device: Any) -> int | None:
    """The most bytes that have been in use on a device; None where it does not tell, as a CPU."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def peak_process_bytes() -> int:
    """The most bytes that this process has had resident."""
    with contextlib.suppress(OSError):  # not Linux
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found is not None:
            return int(found[1]) * 1024
    # On Linux this one is at least what the process that started this one has had.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
