"""The CPU: its cores as jax devices, over which seeds are spread, and what code is made for it."""

import os
import platform
from pathlib import Path

import jax

# For whichever of these a CPU has, XLA makes other code, which adds in another order.
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def use_all_cores() -> None:
    """Make a jax device of each core, unless `JAX_NUM_CPU_DEVICES` says how many there should be.

    It must be called before anything starts the backend.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", count_cores())


def count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_cpu(told: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The model of the CPU, and those of its features for which other code is made."""
    try:
        lines = [line.partition(":") for line in told.read_text().splitlines()]
    except OSError:  # not Linux
        lines = []
    says = {name.strip(): value.strip() for name, _, value in lines}
    features = says.get("flags", says.get("Features", "")).split()  # on x86, on Arm
    return {
        "model": says.get("model name") or platform.processor() or platform.machine(),
        "features": " ".join(name for name in FEATURES if name in features),
    }
