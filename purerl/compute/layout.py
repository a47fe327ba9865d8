"""Over which devices a run is laid out, as its header and the command line say it."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from purerl.compute.mesh import ENVS, SEEDS, make_mesh, over_envs


def parse_devices(text: str, devices: Sequence[Any] | None = None) -> Mesh:
    """`8`, or `4x2` for seeds times environments, as a mesh of so many of the devices.

    **Arguments:** `devices` are those of a machine that is not here; by default all of this run.

    **Raises:** `ValueError` for anything else, where there are not as many, and where a process
    would have none.
    """
    match = re.fullmatch(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?", text)
    if match is None:
        raise ValueError(
            f"devices = {text!r} cannot be read; write 8, or 4x2 for 4 groups of seeds with 2 "
            f"devices each that share their environments."
        )
    seeds, envs, named = int(match[1]), int(match[2] or 1), f"devices = {text!r}"
    if devices is None:
        return mesh_of(seeds, envs, named)
    if seeds * envs > len(devices):
        raise ValueError(
            f"{named} needs {seeds * envs} devices, and the target has {len(devices)}; use fewer."
        )
    return make_mesh(devices[: seeds * envs], envs)


def mesh_of(seeds: int, envs: int, named: str) -> Mesh:
    """The first devices as a mesh of this shape; `named` is what asked for it."""
    needed, there = seeds * envs, jax.device_count()
    if needed > there:
        more = ""
        if jax.devices()[0].platform == "cpu" and jax.process_count() == 1:
            more = f", or set JAX_NUM_CPU_DEVICES={needed}"
        raise ValueError(f"{named} needs {needed} devices, and there are {there}; use fewer{more}.")
    if needed < there and jax.process_count() > 1:
        raise ValueError(
            f"{named} needs {needed} of the {there} devices that {jax.process_count()} processes "
            f"have; with several processes use all."
        )
    return make_mesh(jax.devices()[:needed], envs)


def shape_of(mesh: Mesh | None) -> dict[str, int] | None:
    """A mesh as a header says it; None where it was not asked for."""
    if mesh is None:
        return None
    return {SEEDS: mesh.shape[SEEDS]} | ({ENVS: over_envs(mesh)} if over_envs(mesh) > 1 else {})


def mesh_from(shape: dict[str, int] | None) -> Mesh | None:
    """The mesh that a header says.

    **Raises:** `ValueError` where there are not as many devices.
    """
    if shape is None:
        return None
    seeds, envs = shape[SEEDS], shape.get(ENVS, 1)
    size = f"{seeds}x{envs}" if envs > 1 else str(seeds)
    return mesh_of(seeds, envs, f"the run's mesh, --devices {size},")
