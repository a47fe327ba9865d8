"""What a plan is made of: the training chunk, compiled for any devices, and read.

`python -m purerl.experiment.planning` does so for a target in a process of its own, which loads the
target's compiler: it takes a request, and leaves the findings, as JSON.
"""

import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from purerl.config import Config
from purerl.experiment import hlo
from purerl.experiment.arithmetic import flops
from purerl.experiment.launches import launches
from purerl.experiment.memory import needed
from purerl.experiment.programs import Start, lower_chunk
from purerl.experiment.run import choose_chunk
from purerl.experiment.targets import Target, parse_target
from purerl.mapped import seed_program
from purerl.seeds import Agent, seed_ids
from purerl.sharding import seed_mesh
from purerl.train import init, train_step


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the compiled training chunk says of itself, for one device.

    What is None the compiler did not come to: the chunk needs more memory than there is.
    """

    num_devices: int
    padded_seeds: int
    """The seeds, and repeats of the last up to a number that the devices divide."""
    chunk_updates: int
    memory: int
    """Bytes: arguments, results and temporaries."""
    temporaries: int | None
    collectives: dict[str, int] | None
    flops: float
    """Of one update, as the algorithm asks for them."""
    bytes: float | None
    """Of one update: read and written by its kernels, of arrays larger than the chip's cache."""
    launches: float | None
    """Of one update."""


def lower(config: Config, num_seeds: int, mesh: Mesh, chunk_updates: int) -> Any:
    """The training chunk of a run with so many seeds on a mesh, ready to be compiled for it."""
    padded = padded_size(num_seeds, mesh.size)
    # Of the shape of `seed_keys`, without a million ids.
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), padded))
    agents = Agent(keys, jax.tree.map(lambda leaf: None, config))
    sharding = NamedSharding(mesh, P("seeds"))
    state = jax.tree.map(
        lambda out: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=sharding),
        seed_program(Start(), mesh).lower(agents, config).out_info,
    )
    return lower_chunk(mesh, state, agents, config, chunk_updates)


def padded_size(num_seeds: int, multiple: int) -> int:
    """The size of a batch of seeds that is padded as `pad_seeds` pads it."""
    return -(-num_seeds // multiple) * multiple


def examine(
    config: Config,
    num_seeds: int,
    mesh: Mesh,
    chunk_updates: int,
    *,
    cache: int = 0,
    compiler_options: dict[str, Any] | None = None,
) -> Findings:
    """Compile the training chunk for a mesh, and read what it came to.

    **Arguments:** arrays of no more than `cache` bytes are left out of the traffic.
    """
    padded = padded_size(num_seeds, mesh.size)
    known: dict[str, Any] = {
        "num_devices": mesh.size,
        "padded_seeds": padded,
        "chunk_updates": chunk_updates,
        "flops": flops_of_update(config) * padded / mesh.size,
    }
    try:
        compiled = lower(config, num_seeds, mesh, chunk_updates).compile(compiler_options)
    except jax.errors.JaxRuntimeError as error:
        memory = _used(str(error))
        if memory is None:
            raise
        nothing = dict.fromkeys(("temporaries", "collectives", "bytes", "launches"))
        return Findings(**known, memory=memory, **nothing)
    module = hlo.read(compiled.as_text())
    program = launches(module, at_least=cache)
    return Findings(
        **known,
        memory=needed(compiled),
        temporaries=int(compiled.memory_analysis().temp_size_in_bytes),
        collectives=dict(module.collectives()),
        bytes=program.total_bytes / chunk_updates,
        launches=program.total_launches / chunk_updates,
    )


def flops_of_update(config: Config) -> float:
    """Floating-point operations of one update of one agent."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(init, key, config)
    return flops(train_step, state, config)


def _used(message: str) -> int | None:
    """Bytes that a program needs, from what libtpu says of one that it cannot fit in."""
    number = r"([\d.]+)([KMGT])"
    found = re.search(rf"Used {number} of|\({number}\) exceeds available HBM", message)
    if found is None:
        return None
    amount, unit = found[1] or found[3], found[2] or found[4]
    return int(float(amount) * 1024 ** ("KMGT".index(unit) + 1))


def examine_target(config: Config, num_seeds: int, target: Target, limit: int) -> dict[str, Any]:
    """The findings for a target, and about how many seeds need `limit` bytes of each device."""
    start = time.perf_counter()
    mesh = seed_mesh(target.devices())
    chunk_updates = choose_chunk(config, None)

    def with_seeds(count: int) -> Findings:
        options = target.compiler_options or None
        cache = target.chip.cache
        return examine(config, count, mesh, chunk_updates, cache=cache, compiler_options=options)

    found = with_seeds(num_seeds)
    seconds = time.perf_counter() - start
    return dataclasses.asdict(found) | {
        "compile_seconds": seconds,
        "largest_seeds": largest(found, with_seeds, limit),
    }


def largest(found: Findings, with_seeds: Any, limit: int) -> int:
    """About how many seeds need `limit` bytes of each device, from the memory of two numbers."""

    def each(findings: Findings) -> int:
        return findings.padded_seeds // findings.num_devices

    guess = max(1, int(each(found) * limit / found.memory))
    if guess == each(found):
        return guess * found.num_devices
    other = with_seeds(guess * found.num_devices)
    more = (other.memory - found.memory) / (each(other) - each(found))
    if more <= 0:
        return guess * found.num_devices
    return max(0, int(each(other) + (limit - other.memory) / more)) * found.num_devices


def main() -> None:
    """Carry out the request in the first file; leave findings, or a refusal, in the second."""
    from purerl.presets import preset

    request, answer = map(Path, sys.argv[1:])
    asked = json.loads(request.read_text())
    sys.path.insert(0, asked["directory"])  # env may be an import path: package.module:Name
    try:
        seed_ids(asked["seeds"])
        target = parse_target(asked["target"])
        config = preset(asked["env"], asked["algo"], **_with_tuples(asked["settings"]))
        found = examine_target(config, asked["seeds"], target, asked["limit"])
        found |= {"env_steps_per_update": config.env_steps_per_update}
    except ValueError as error:
        if "\n" in str(error):
            raise
        found = {"refused": str(error)}
    answer.write_text(json.dumps(found))


def _with_tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were before JSON made lists of tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


if __name__ == "__main__":
    main()
