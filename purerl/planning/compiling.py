"""What a plan is made of: the training chunk, compiled for any devices, and read.

`python -m purerl.planning.compiling` does so for a target in a process of its own, which loads the
target's compiler: it takes a request, and leaves the findings, as JSON.
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

from purerl.agents import Agent, Play
from purerl.compute.mesh import SEEDS, over_envs, parse_devices, require_mesh, seed_mesh
from purerl.config.config import Config
from purerl.experiment.hosts.memory import needed
from purerl.experiment.programs import kept_beside, lower_chunk, lower_init, lower_play
from purerl.experiment.runner import choose_chunk
from purerl.planning import hlo
from purerl.planning.flops import flops
from purerl.planning.launches import launches
from purerl.planning.targets import Target, parse_target
from purerl.seeds import seed_ids
from purerl.training import init, train_step

EPISODES = 32  # of each seed, which a run plays at its end


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the compiled training chunk says of itself, for one device.

    What is None the compiler did not come to: the chunk needs more memory than there is.
    """

    num_devices: int
    sharing: int
    """Devices that share the environments of the same seeds."""
    padded_seeds: int
    """The seeds, and repeats of the last up to a number that the devices divide."""
    chunk_updates: int
    memory: int
    """Bytes: arguments, results and temporaries of the program of a run that needs the most."""
    beside: int | None
    """Of the programs beside the training chunk."""
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
    agents = _agents(config, num_seeds, mesh)
    _, state = lower_init(mesh, agents, config)
    return lower_chunk(mesh, state, agents, config, chunk_updates)


def _agents(config: Config, num_seeds: int, mesh: Mesh) -> Agent:
    """The shapes of the agents of a run."""
    padded = padded_size(num_seeds, mesh.shape[SEEDS])
    # Of the shape of `seed_keys`, without a million ids.
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), padded))
    return Agent(keys, jax.tree.map(lambda leaf: None, config))


def needed_beside_training(config: Config, num_seeds: int, mesh: Mesh, options: Any) -> int:
    """Bytes that the other programs of a run need, which begin it and play its episodes."""
    agents = _agents(config, num_seeds, mesh)
    beginning, state = lower_init(mesh, agents, config)
    most = needed(beginning.compile(options))
    if config.time_limit is None:
        return most
    play = lower_play(mesh, Play(EPISODES, config.time_limit), state, agents, config)
    return max(most, needed(play.compile(options)) + kept_beside(mesh, state))


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
    beside: int | None = None,
) -> Findings:
    """Compile the training chunk for a mesh, and read what it came to.

    What begins the run and plays its episodes counts for the memory alone; it is compiled too, but
    where `beside` says how many bytes it needs.

    **Arguments:** arrays of no more than `cache` bytes are left out of the traffic.
    """
    padded = padded_size(num_seeds, mesh.shape[SEEDS])
    known: dict[str, Any] = {
        "num_devices": mesh.size,
        "sharing": over_envs(mesh),
        "padded_seeds": padded,
        "chunk_updates": chunk_updates,
        "flops": flops_of_update(config) * padded / mesh.size,
    }
    try:
        compiled = lower(config, num_seeds, mesh, chunk_updates).compile(compiler_options)
        if beside is None:
            beside = needed_beside_training(config, num_seeds, mesh, compiler_options)
    except jax.errors.JaxRuntimeError as error:
        memory = _used(str(error))
        if memory is None:
            raise
        nothing = dict.fromkeys(("beside", "temporaries", "collectives", "bytes", "launches"))
        return Findings(**known, memory=memory, **nothing)
    module = hlo.read(compiled.as_text())
    program = launches(module, at_least=cache)
    return Findings(
        **known,
        memory=max(needed(compiled), beside),
        beside=beside,
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


def mesh_on(devices: Sequence[Any], num_seeds: int, layout: str | None) -> Mesh:
    """The mesh that a run would have on all of these devices, or on those that `layout` asks for.

    As there, devices without a seed of their own are left out, but none of several processes.
    """
    if layout is not None:
        return parse_devices(layout, devices)
    is_one_process = len({device.process_index for device in devices}) == 1
    return seed_mesh(devices, num_seeds if is_one_process else None)


def examine_target(
    config: Config, num_seeds: int, target: Target, limit: int, layout: str | None = None
) -> dict[str, Any]:
    """The findings for a target, and about how many seeds need `limit` bytes of each device."""
    start = time.perf_counter()
    mesh = require_mesh(mesh_on(target.devices(), num_seeds, layout), config.num_envs)
    chunk_updates = choose_chunk(config, None)

    examined = functools.partial(
        examine,
        config,
        mesh=mesh,
        chunk_updates=chunk_updates,
        cache=target.chip.cache,
        compiler_options=target.compiler_options or None,
    )
    found = examined(num_seeds)
    seconds = time.perf_counter() - start

    def with_seeds(count: int) -> Findings:
        # What is beside the training chunk grows with the seeds: that one alone is compiled again.
        beside = None if found.beside is None else found.beside * count // found.padded_seeds
        return examined(count, beside=beside)

    return dataclasses.asdict(found) | {
        "compile_seconds": seconds,
        "largest_seeds": largest(found, with_seeds, limit),
    }


def largest(found: Findings, with_seeds: Callable[[int], Findings], limit: int) -> int:
    """About how many seeds need `limit` bytes of each device, from the memory of two numbers."""
    groups = found.num_devices // found.sharing  # of devices, each with seeds of its own

    def each(findings: Findings) -> int:
        return findings.padded_seeds // groups

    guess = max(1, int(each(found) * limit / found.memory))
    if guess == each(found):
        return guess * groups
    other = with_seeds(guess * groups)
    more = (other.memory - found.memory) / (each(other) - each(found))
    if more <= 0:
        return guess * groups
    return max(0, int(each(other) + (limit - other.memory) / more)) * groups


def main() -> None:
    """Carry out the request in the first file; leave findings, or a refusal, in the second."""
    from purerl.config.presets import preset

    request, answer = map(Path, sys.argv[1:])
    asked = json.loads(request.read_text())
    sys.path.insert(0, asked["directory"])  # env may be an import path: package.module:Name
    try:
        seed_ids(asked["seeds"])
        target = parse_target(asked["target"])
        config = preset(asked["env"], asked["algo"], **_with_tuples(asked["settings"]))
        found = examine_target(config, asked["seeds"], target, asked["limit"], asked["devices"])
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
