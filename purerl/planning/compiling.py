"""Compiles the training chunk of a run for any devices, and reads from it what a plan says.

`python -m purerl.planning.compiling` does so in a process of its own, which loads the target's
compiler: it reads a `PlanRequest` and writes a `CompiledPlan`, as JSON.
"""

import dataclasses
import functools
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from purerl.agents import Agent, EvaluateAgent
from purerl.checks import ceil_div
from purerl.compute.mesh import SEEDS, layout_of, require_mesh, seed_mesh
from purerl.config.config import Config
from purerl.experiment.hosts.asking import end_with
from purerl.experiment.hosts.devices import parse_mesh
from purerl.experiment.hosts.memory import program_bytes
from purerl.experiment.programs import LoweredPrograms
from purerl.experiment.store.spec import choose_chunk_length
from purerl.planning import hlo
from purerl.planning.flops import count_flops
from purerl.planning.launches import count_launches
from purerl.planning.targets import Target, parse_target
from purerl.seeds import require_seed_count
from purerl.training import init, train_step

EPISODES = 32  # of each seed, at the end of a run


@dataclasses.dataclass(frozen=True)
class PlanRequest:
    """What another process shall compile."""

    target: str
    env: str
    algo: str
    seeds: int
    devices: str | None
    settings: dict[str, Any]
    limit: int
    """Bytes that may be used on each device."""
    directory: str | None
    """Where Python looks last, if the environment is named by an import path."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the compiled training chunk needs of one device; from `flops` on, for one update.

    Where the compiler gives up, as memory does not suffice, what is not known is None.
    """

    num_devices: int
    devices_per_agent: int
    """Devices that share the environments of the same seeds."""
    padded_seeds: int
    """The seeds, and the repeats of the last that make the devices divide their number."""
    chunk_updates: int
    memory: int
    """Bytes of the program of a run that needs most: its arguments, results and temporaries."""
    other_programs_bytes: int | None
    """The same of the programs beside the training chunk."""
    temporaries: int | None
    collectives: dict[str, int] | None
    flops: float
    """As the algorithm asks for them."""
    bytes: float | None
    """What the kernels read and write of arrays larger than the chip's cache."""
    launches: float | None


@dataclasses.dataclass(frozen=True)
class CompiledPlan:
    """The answer to a `PlanRequest`."""

    findings: Findings
    compile_seconds: float
    max_seeds: int
    env_steps_per_update: int
    """Of one seed."""


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of which only the shapes are needed."""

    config: Config
    num_seeds: int
    mesh: Mesh
    chunk_updates: int

    @property
    def padded_seeds(self) -> int:
        """The seeds, with the repeats that `pad_seeds` adds."""
        num_devices = self.mesh.shape[SEEDS]
        return ceil_div(self.num_seeds, num_devices) * num_devices

    @functools.cached_property
    def programs(self) -> LoweredPrograms:
        # The shape of `seed_keys`, without a million ids.
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), self.padded_seeds))
        agents = Agent(keys, jax.tree.map(lambda leaf: None, self.config))
        return LoweredPrograms(self.mesh, agents, self.config)

    def chunk(self) -> Any:
        """The training chunk, to be compiled for the devices of the mesh."""
        return self.programs.chunk(self.chunk_updates)

    def other_programs_bytes(self, compiler_options: dict[str, Any] | None) -> int:
        """Bytes of the program that needs more: to begin the run, or to play its episodes."""
        init_bytes = program_bytes(self.programs.init.compile(compiler_options))
        if self.config.time_limit is None:
            return init_bytes
        evaluate = EvaluateAgent(EPISODES, self.config.time_limit)
        evaluation = self.programs.evaluation(evaluate).compile(compiler_options)
        return max(init_bytes, program_bytes(evaluation) + self.programs.resident_bytes)


def read_compiled(
    run: PlannedRun,
    *,
    cache: int = 0,
    compiler_options: dict[str, Any] | None = None,
    other_programs_bytes: int | None = None,
) -> Findings:
    """Compile the training chunk of a run, and read what it needs.

    The other programs count for the memory alone. They are compiled too, unless
    `other_programs_bytes` is given.

    **Arguments:** the traffic leaves out arrays smaller than `cache` bytes.
    """
    known: dict[str, Any] = {
        "num_devices": run.mesh.size,
        "devices_per_agent": layout_of(run.mesh).envs,
        "padded_seeds": run.padded_seeds,
        "chunk_updates": run.chunk_updates,
        "flops": update_flops(run.config) * run.padded_seeds / run.mesh.size,
    }
    try:
        compiled = run.chunk().compile(compiler_options)
        if other_programs_bytes is None:
            other_programs_bytes = run.other_programs_bytes(compiler_options)
    except jax.errors.JaxRuntimeError as error:
        memory = _bytes_in_message(str(error))
        if memory is None:
            raise
        unknown = ("other_programs_bytes", "temporaries", "collectives", "bytes", "launches")
        return Findings(**known, memory=memory, **dict.fromkeys(unknown))
    module = hlo.parse_hlo(compiled.as_text())
    program = count_launches(module, min_bytes=cache)
    return Findings(
        **known,
        memory=max(program_bytes(compiled), other_programs_bytes),
        other_programs_bytes=other_programs_bytes,
        temporaries=int(compiled.memory_analysis().temp_size_in_bytes),
        collectives=dict(module.collectives()),
        bytes=program.total_bytes / run.chunk_updates,
        launches=program.total_launches / run.chunk_updates,
    )


def update_flops(config: Config) -> float:
    """Floating-point operations of one update of one agent."""
    state = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), config)
    return count_flops(train_step, state, config)


def _bytes_in_message(message: str) -> int | None:
    """Bytes that a program needs, from libtpu's message that it does not fit."""
    number = r"([\d.]+)([KMGT])"
    match = re.search(rf"Used {number} of|\({number}\) exceeds available HBM", message)
    if match is None:
        return None
    amount, unit = match[1] or match[3], match[2] or match[4]
    return int(float(amount) * 1024 ** ("KMGT".index(unit) + 1))


def mesh_on(devices: Sequence[Any], num_seeds: int, layout: str | None) -> Mesh:
    """The mesh that a run would have on these devices, or on those that `layout` asks for.

    Devices without a seed are left out, unless the devices belong to several processes.
    """
    if layout is not None:
        return parse_mesh(layout, devices)
    is_one_process = len({device.process_index for device in devices}) == 1
    return seed_mesh(devices, num_seeds if is_one_process else None)


def compile_for_target(
    config: Config, num_seeds: int, target: Target, limit: int, layout: str | None = None
) -> CompiledPlan:
    """Compile for a target, and estimate how many seeds need `limit` bytes of each device."""
    start = time.perf_counter()
    mesh = require_mesh(mesh_on(target.devices(), num_seeds, layout), config.num_envs)
    run = PlannedRun(config, num_seeds, mesh, choose_chunk_length(config, None))
    read = functools.partial(
        read_compiled, cache=target.chip.cache, compiler_options=target.compiler_options or None
    )
    findings = read(run)
    seconds = time.perf_counter() - start

    def with_seeds(count: int) -> Findings:
        # The other programs grow with the seeds: only the training chunk is compiled again.
        known = findings.other_programs_bytes
        scaled = None if known is None else known * count // findings.padded_seeds
        return read(dataclasses.replace(run, num_seeds=count), other_programs_bytes=scaled)

    return CompiledPlan(
        findings=findings,
        compile_seconds=seconds,
        max_seeds=max_seeds(findings, with_seeds, limit),
        env_steps_per_update=config.env_steps_per_update,
    )


def max_seeds(findings: Findings, with_seeds: Callable[[int], Findings], limit: int) -> int:
    """About how many seeds need `limit` bytes of each device, by a line through two numbers."""
    groups = findings.num_devices // findings.devices_per_agent  # each with seeds of its own
    per_group = findings.padded_seeds // groups
    guess = max(1, int(per_group * limit / findings.memory))
    if guess == per_group:
        return guess * groups
    other = with_seeds(guess * groups)
    growth = (other.memory - findings.memory) / (guess - per_group)
    if growth <= 0:
        return guess * groups
    return max(0, int(guess + (limit - other.memory) / growth)) * groups


def main() -> None:
    """Read the request in the first file, and write the answer into the second."""
    from purerl.config.presets import preset

    request_file, answer_file = map(Path, sys.argv[1:3])
    end_with(int(sys.argv[3]))
    request = PlanRequest(**json.loads(request_file.read_text()))
    if request.directory is not None:
        sys.path.append(request.directory)
    try:
        require_seed_count(request.seeds)
        target = parse_target(request.target)
        config = preset(request.env, request.algo, **_with_tuples(request.settings))
        compiled = compile_for_target(config, request.seeds, target, request.limit, request.devices)
        answer = dataclasses.asdict(compiled)
    except ValueError as error:
        if "\n" in str(error):
            raise
        answer = {"refused": str(error)}
    answer_file.write_text(json.dumps(answer))


def _with_tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were before JSON made lists of tuples."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}


if __name__ == "__main__":
    main()
