"""Every test runs with shapes checked, and on two CPU devices."""

import os

# Before anything imports jax. Two devices, as the command line sets up on two cores.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("purerl", "beartype.beartype")
