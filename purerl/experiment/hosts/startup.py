"""How a process begins: on all cores, with compiled programs cached, without collecting garbage.

Importing this imports nothing: the command line calls it before jax is there.
"""

import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# For whichever of these a CPU has, XLA makes other code, which adds in another order.
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


def use_all_cores() -> None:
    """Make a jax device of each core, unless `JAX_NUM_CPU_DEVICES` says how many there should be.

    It must be called before anything starts the backend.
    """
    import jax

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


def use_compilation_cache() -> None:
    """Keep what is compiled under `~/.cache/purerl`, unless jax is told where, or not to.

    `JAX_COMPILATION_CACHE_DIR` names another directory; `JAX_ENABLE_COMPILATION_CACHE=0` keeps
    nothing.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        (home / "purerl").mkdir(parents=True, exist_ok=True)
    except OSError:  # as of a user without a home: jax would warn of it
        return
    jax.config.update("jax_compilation_cache_dir", str(home / "purerl"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@contextmanager
def no_collection() -> Iterator[None]:
    """No search for garbage meanwhile: what is imported, traced or lowered is kept anyway."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
