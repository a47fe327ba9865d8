"""A plan of a run on machines that are not here: whether it fits, how fast it could be."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from purerl.checks import one_line
from purerl.experiment.hosts.memory import SHARE
from purerl.experiment.hosts.stopping import RunError
from purerl.planning.targets import parse_target, require_compiler


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run would be on a target. Of a device, or of an update, unless it says otherwise."""

    env: str
    algo: str
    target: str
    device: str
    num_devices: int
    seeds: int
    seeds_per_device: int
    """With the repeats of the last seed that make the devices divide them."""
    sharing: int
    """Devices that share the environments of the same seeds."""
    fits: bool
    memory: int
    """Bytes that the program of the run needs which needs the most."""
    temporaries: int | None
    """Bytes of the training chunk for what is not kept to the next; None where nothing fits."""
    memory_limit: int
    """Bytes that a run may use."""
    device_memory: int
    largest_seeds: int
    """Seeds of the whole run that would fill the devices, about."""
    collectives: dict[str, int] | None
    """Instructions of the compiled chunk in which devices wait for each other."""
    flops: float
    """Floating-point operations."""
    bytes: float | None
    """Read and written by the kernels, of arrays larger than the chip's cache."""
    launches: float | None
    """Kernels, library calls and copies."""
    seconds: float
    """A lower bound: the data sheet's time for the operations, or for the bytes."""
    bound_by: str
    """`arithmetic` or `memory`, whichever takes longer."""
    steps_per_second: float
    """Environment steps of all seeds, an upper bound."""
    chunk_updates: int
    compile_seconds: float
    versions: dict[str, str]
    """Of what compiled."""


def plan(
    env: str,
    algo: str = "vpg",
    *,
    target: str,
    seeds: int,
    devices: str | None = None,
    **settings: Any,
) -> Plan:
    """Compile a run's programs for a target, and read from them what the run would need.

    A process of its own compiles: it loads the target's compiler, and needs none of its hardware.

    **Arguments:** `env` is a name or an import path; `settings` are those of `preset`; `target`
    names devices, such as `h100`, `h100:8` or `v5e:16x16`; `devices` lays the run out over them,
    `8` or `4x2` for seeds times environments, by default seeds over all.

    **Raises:** `ValueError` for what a run would refuse, an unknown target, or where its compiler
    is not installed; `RunError` where compiling fails.
    """
    aim = parse_target(target)
    versions = require_compiler(aim)
    limit = int(SHARE * aim.chip.share * aim.chip.memory)
    request = {
        "target": target,
        "env": env,
        "algo": algo,
        "seeds": seeds,
        "devices": devices,
        "settings": settings,
        "limit": limit,
        "directory": os.getcwd(),
    }
    found = _in_own_process(request)
    in_flops = found["flops"] / aim.chip.flops
    in_bytes = (found["bytes"] or 0) / aim.chip.bandwidth
    seconds = max(in_flops, in_bytes)
    per_device = found["padded_seeds"] * found["sharing"] // found["num_devices"]
    env_steps = found.pop("env_steps_per_update") * seeds
    found.pop("padded_seeds")
    found.pop("beside")
    return Plan(
        env=env,
        algo=algo,
        target=target,
        device=aim.chip.name,
        seeds=seeds,
        seeds_per_device=per_device,
        fits=found["memory"] <= limit,
        memory_limit=limit,
        device_memory=int(aim.chip.memory),
        seconds=seconds,
        bound_by="arithmetic" if in_flops >= in_bytes else "memory",
        steps_per_second=env_steps / seconds,
        versions=versions,
        **found,
    )


def _in_own_process(request: dict[str, Any]) -> dict[str, Any]:
    """Have the planning done where the compiler can be loaded, and wait for it."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
        "JAX_PLATFORMS": "cpu",  # jax starts no other backend; a compiler is loaded by its name
        "JAX_ENABLE_COMPILATION_CACHE": "0",
    }
    with tempfile.TemporaryDirectory() as name:
        asked, answer = Path(name, "request.json"), Path(name, "answer.json")
        asked.write_text(_as_json(request))
        done = subprocess.run(
            [sys.executable, "-m", "purerl.planning.compiling", str(asked), str(answer)],
            env=environment,
            capture_output=True,
            text=True,
        )
        if not answer.exists():
            last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise RunError(f"compiling for {request['target']} failed: {last}")
        found = json.loads(answer.read_text())
    if "refused" in found:
        raise ValueError(found["refused"])
    return found


def _as_json(request: dict[str, Any]) -> str:
    try:
        return json.dumps(request)
    except TypeError:
        raise ValueError(
            f"settings = {one_line(request['settings'])} cannot be given to another process; "
            f"use numbers, names and tuples of them."
        ) from None
