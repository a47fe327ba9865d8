"""How a process begins: on all cores, with a compilation cache, with garbage collection paused.

Importing this does not import jax: the command line calls it first.
"""

import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# XLA makes other code for a CPU with one of these, which adds in another order.
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def use_all_cores() -> None:
    """Make a jax device of each core, unless `JAX_NUM_CPU_DEVICES` is set; before jax's backend."""
    import jax

    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", count_cores())


def count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The model of the CPU, and those of its `FEATURES`."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    except OSError:  # not Linux
        lines = []
    fields = {name.strip(): value.strip() for name, _, value in lines}
    features = fields.get("flags", fields.get("Features", "")).split()  # on x86, on Arm
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "features": " ".join(name for name in FEATURES if name in features),
    }


def use_compilation_cache() -> None:
    """Cache compiled programs in `~/.cache/purerl`, or in `JAX_COMPILATION_CACHE_DIR` if set.

    `JAX_ENABLE_COMPILATION_CACHE=0` caches nothing.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        (home / "purerl").mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a user without a home: jax would warn; without a name
        return
    jax.config.update("jax_compilation_cache_dir", str(home / "purerl"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector: what is imported, traced or lowered is kept anyway."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
