"""Compiled programs, kept from one command to the next."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keep what is compiled under `~/.cache/purerl`, unless jax is told where, or not to.

    `JAX_COMPILATION_CACHE_DIR` names another directory; `JAX_ENABLE_COMPILATION_CACHE=0` keeps
    nothing.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        (home / "purerl").mkdir(parents=True, exist_ok=True)
    except OSError:  # as of a user without a home: jax would warn of it
        return
    jax.config.update("jax_compilation_cache_dir", str(home / "purerl"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
