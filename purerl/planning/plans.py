"""Plans a run on machines that are not here: whether it fits, and how fast it could be."""

import dataclasses
import os
from typing import Any

from purerl.checks import require_sendable
from purerl.config.settings import OBJECT_SETTINGS, OF_PRESET, shows_settings
from purerl.experiment.hosts.asking import ask
from purerl.experiment.hosts.memory import USABLE_FRACTION
from purerl.experiment.hosts.stopping import RunError
from purerl.planning.compiling import CompiledPlan, Findings, PlanRequest
from purerl.planning.targets import parse_target, require_compiler


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on a target. Figures are of one device or one update, unless they say otherwise."""

    env: str
    algo: str
    target: str
    device: str
    num_devices: int
    seeds: int
    seeds_per_device: int
    """With the repeats of the last seed that make the devices divide their number."""
    devices_per_agent: int
    """Devices that share the environments of the same seeds."""
    fits: bool
    memory: int
    """Bytes of the program of the run that needs most."""
    temporaries: int | None
    """Bytes that the training chunk does not keep for the next; None where it does not fit."""
    memory_limit: int
    """Bytes that a run may use."""
    device_memory: int
    max_seeds: int
    """Seeds of the whole run that would about fill the devices."""
    collectives: dict[str, int] | None
    """Instructions of the training chunk in which devices wait for each other, by opcode."""
    flops: float
    """Floating-point operations."""
    bytes: float | None
    """What the kernels read and write of arrays larger than the chip's cache."""
    launches: float | None
    """Kernels, library calls and copies."""
    seconds: float
    """A lower bound: the time of the operations, or of the bytes, by the data sheet."""
    bound_by: str
    """`arithmetic` or `memory`: what takes longer."""
    steps_per_second: float
    """Environment steps of all seeds: an upper bound."""
    chunk_updates: int
    compile_seconds: float
    versions: dict[str, str]
    """Of the packages that compiled it."""


@shows_settings(otherwise=OF_PRESET, without=OBJECT_SETTINGS)
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

    Another process compiles. It loads the target's compiler, and needs none of its hardware.

    **Arguments:** `env` is a name or an import path; `settings` are those of `preset`; `target`
    names devices, such as `h100`, `h100:8` or `v5e:16x16`; `devices` lays the run out over them,
    `8` or `4x2` for seeds times environments, by default seeds over all.

    **Raises:** `ValueError` for what a run would refuse, an unknown target, or where its compiler
    is not installed; `RunError` where compiling fails.
    """
    require_sendable(env, settings)
    parsed_target = parse_target(target)
    versions, chip = require_compiler(parsed_target), parsed_target.chip
    limit = int(USABLE_FRACTION * chip.share * chip.memory)
    directory = os.getcwd() if ":" in env else None  # of a module:Name
    request = PlanRequest(target, env, algo, seeds, devices, settings, limit, directory)
    compiled = _compile_in_subprocess(request)
    findings = compiled.findings
    arithmetic_seconds = findings.flops / chip.flops
    memory_seconds = (findings.bytes or 0) / chip.bandwidth
    seconds = max(arithmetic_seconds, memory_seconds)
    groups = findings.num_devices // findings.devices_per_agent
    fields = {field.name for field in dataclasses.fields(Plan)}
    return Plan(
        **{name: found for name, found in vars(findings).items() if name in fields},
        env=env,
        algo=algo,
        target=target,
        device=chip.name,
        seeds=seeds,
        seeds_per_device=findings.padded_seeds // groups,
        fits=findings.memory <= limit,
        memory_limit=limit,
        device_memory=int(chip.memory),
        max_seeds=compiled.max_seeds,
        seconds=seconds,
        bound_by="arithmetic" if arithmetic_seconds >= memory_seconds else "memory",
        steps_per_second=compiled.env_steps_per_update * seeds / seconds,
        compile_seconds=compiled.compile_seconds,
        versions=versions,
    )


def _compile_in_subprocess(request: PlanRequest) -> CompiledPlan:
    # No other backend starts: a compiler is loaded by its name.
    answer, ending = ask("purerl.planning.compiling", vars(request), JAX_PLATFORMS="cpu")
    if "refused" in answer:
        raise ValueError(answer["refused"])
    if not answer:
        raise RunError(f"compiling for {request.target} failed: {ending}")
    return CompiledPlan(findings=Findings(**answer.pop("findings")), **answer)
