"""The devices of a run as the command line and a header write them: `8`, or `4x2`."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from purerl.checks import speaks_to_a_shell
from purerl.compute.mesh import ENVS, SEEDS, layout_of, make_mesh


def parse_mesh(text: str, devices: Sequence[Any] | None = None) -> Mesh:
    """Read a mesh from `8`, or from `4x2` for seeds times environments.

    **Arguments:** `devices` are those of a machine that is not here; by default all of this run.

    **Raises:** `ValueError` for other text, for too few devices, and where a process has none.
    """
    match = re.fullmatch(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?", text)
    if match is None:
        raise ValueError(
            f"devices = {text!r} cannot be read; write 8, or 4x2 for 4 groups of seeds with 2 "
            f"devices each that share their environments."
        )
    seeds, envs, source = int(match[1]), int(match[2] or 1), f"devices = {text!r}"
    if devices is None:
        return first_devices_mesh(seeds, envs, source)
    if seeds * envs > len(devices):
        raise ValueError(
            f"{source} needs {seeds * envs} devices, and the target has {len(devices)}; use fewer."
        )
    return make_mesh(devices[: seeds * envs], envs)


def first_devices_mesh(seeds: int, envs: int, source: str) -> Mesh:
    """The first devices as a mesh of this shape; an error begins with `source`, the setting."""
    needed, count = seeds * envs, jax.device_count()
    if needed > count:
        hint = ""
        if jax.devices()[0].platform == "cpu" and jax.process_count() == 1:
            hint = f", or set JAX_NUM_CPU_DEVICES={needed}"
        raise ValueError(
            f"{source} needs {needed} devices, and there are {count}; use fewer{hint}."
        )
    if needed < count and jax.process_count() > 1:
        raise ValueError(
            f"{source} needs {needed} of the {count} devices that {jax.process_count()} processes "
            f"have; with several processes use all."
        )
    return make_mesh(jax.devices()[:needed], envs)


def mesh_to_dict(mesh: Mesh | None) -> dict[str, int] | None:
    """The shape of a mesh, as a run's header stores it; None without a mesh."""
    if mesh is None:
        return None
    envs = layout_of(mesh).envs
    return {SEEDS: mesh.shape[SEEDS]} | ({ENVS: envs} if envs > 1 else {})


def mesh_from_dict(shape: dict[str, int] | None) -> Mesh | None:
    """The mesh that a run's header stores.

    **Raises:** `ValueError` where there are too few devices.
    """
    if shape is None:
        return None
    seeds, envs = shape[SEEDS], shape.get(ENVS, 1)
    size = f"{seeds}x{envs}" if envs > 1 else str(seeds)
    given = f"--devices {size}" if speaks_to_a_shell() else f"{shape}"
    return first_devices_mesh(seeds, envs, f"the run's mesh, {given},")
