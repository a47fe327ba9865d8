"""The cores of a CPU as jax devices, over which seeds are spread."""

import os

import jax


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
