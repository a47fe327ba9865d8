"""The compiled programs of a run, for as many seeds at once as fit."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key

from purerl.agents import Advance, Agent, Play, Start, agents_of, state_shardings
from purerl.compute.mapping import block_size, pad_seeds, seed_program
from purerl.compute.mesh import SEEDS, place, require_mesh, seed_mesh
from purerl.config.config import Config
from purerl.experiment.hosts.memory import available, needed, size_of
from purerl.experiment.hosts.processes import exchange, several
from purerl.experiment.hosts.startup import no_collection
from purerl.experiment.report.format import show_bytes
from purerl.training import TrainState


class Programs(NamedTuple):
    """The compiled programs of a run, all for one padded batch of agents."""

    mesh: Mesh
    batches: list[Agent]
    """Each padded to the same size, on the devices."""
    fixed: Config
    num_agents: int
    seed_batch: int
    """The agents of each batch, of which the last may have fewer."""
    config: Config
    chunk_updates: int
    init: Callable[..., Any]
    chunk: Callable[..., Any]
    evaluate: Callable[..., Any] | None
    state: TrainState
    """The shapes of a batch's states, and where they live."""
    memory: int
    """Bytes that they need on each device."""
    seconds: float


def compile_programs(
    keys: Key[Array, " seeds"],
    config: Config,
    axes: Config | None,
    *,
    chunk_updates: int,
    episodes: int,
    sampled: bool = False,
    seed_batch: int | None = None,
    memory_limit: int | None = None,
    mesh: Mesh | None = None,
) -> Programs:
    """Compile what a run needs for every seed with every setting.

    Agents that do not fit into the memory of the devices together are trained in batches. Without
    `mesh`, seeds are spread over all devices of all processes.

    **Raises:** `ValueError` where `seed_batch` agents do not fit, not even one a device does, or
    the mesh does not fit the config.
    """
    start = time.perf_counter()
    agents, fixed = agents_of(keys, config, axes)
    num_agents = len(agents.key)
    if mesh is None:  # no more devices than agents, but some of each process
        mesh = seed_mesh(jax.devices(), None if several() else num_agents)
    mesh = require_mesh(mesh, config.num_envs)
    num_devices = mesh.shape[SEEDS]
    told = "memory_limit" if memory_limit is not None else "the memory that is free"
    play = None
    if episodes and config.time_limit is not None:
        play = Play(episodes, config.time_limit, sampled=sampled)

    def compiled(size: int) -> Programs:
        return _compile(agents, fixed, config, chunk_updates, play, min(size, num_agents), mesh)

    free = [available(mesh.local_devices)] if memory_limit is None else [memory_limit]
    limits = [limit for (limit,) in exchange(free) if limit is not None]
    limit = min(limits) if limits else None
    programs = compiled(num_agents if seed_batch is None else seed_batch)
    if limit is not None and programs.memory > limit:
        fits = _largest_batch(programs, compiled(num_devices), limit, num_devices, told)
        while (fitted := compiled(fits)).memory > limit and fits > num_devices:  # just beside it
            fits -= max(num_devices, fits // 8 // num_devices * num_devices)
        if seed_batch is not None:
            raise ValueError(
                f"seed_batch = {seed_batch} needs {show_bytes(programs.memory)} on each device, "
                f"and {told} is {show_bytes(limit)}; use {fits} or fewer."
            )
        programs = fitted
    return programs._replace(seconds=time.perf_counter() - start)


def _largest_batch(large: Programs, small: Programs, limit: int, multiple: int, told: str) -> int:
    """The agents of a batch that fits, from the memory of two: it grows by the same with each."""
    if small.memory > limit:
        raise ValueError(
            f"{told} = {show_bytes(limit)} on each device is less than the "
            f"{show_bytes(small.memory)} that one seed a device needs; "
            f"use fewer num_envs or a shorter rollout_length."
        )
    more = large.seed_batch - small.seed_batch
    each = max(1.0, (large.memory - small.memory) / max(1, more))
    fits = small.seed_batch + int((limit - small.memory) / each)
    fits = max(multiple, fits // multiple * multiple)
    num_batches = -(-large.num_agents // fits)
    return -(-large.num_agents // (num_batches * multiple)) * multiple  # all about as large


def _compile(
    agents: Agent,
    fixed: Config,
    config: Config,
    chunk_updates: int,
    play: Play | None,
    size: int,
    mesh: Mesh,
) -> Programs:
    num_agents, num_devices = len(agents.key), mesh.shape[SEEDS]
    padded = -(-size // num_devices) * num_devices

    def batch(i: int) -> Agent:
        some = pad_seeds(jax.tree.map(lambda leaf: leaf[i : i + size], agents), padded)
        return place(some, NamedSharding(mesh, P(SEEDS)))

    batches = [batch(i) for i in range(0, num_agents, size)]
    first = batches[0]
    # One is traced while another compiles, which leaves Python free.
    with no_collection(), ThreadPoolExecutor(max_workers=2) as threads:
        lowered, state = lower_init(mesh, first, fixed)
        init_compiling = threads.submit(lowered.compile)
        lowered = lower_chunk(mesh, state, first, fixed, chunk_updates)
        chunk_compiling = threads.submit(lowered.compile)
        compiled_play = None
        if play is not None:
            compiled_play = lower_play(mesh, play, state, first, fixed).compile()
        compiled_init, compiled_chunk = init_compiling.result(), chunk_compiling.result()
    memory = max(needed(compiled_init), needed(compiled_chunk))
    if compiled_play is not None:
        beside = kept_beside(mesh, state) if len(batches) == 1 else 0
        memory = max(memory, needed(compiled_play) + beside)
    return Programs(
        mesh=mesh,
        batches=batches,
        fixed=fixed,
        num_agents=num_agents,
        seed_batch=size,
        config=config,
        chunk_updates=chunk_updates,
        init=compiled_init,
        chunk=compiled_chunk,
        evaluate=compiled_play,
        state=state,
        memory=memory,
        seconds=0.0,
    )


def lower_init(mesh: Mesh, agents: Agent, fixed: Config) -> tuple[Any, TrainState]:
    """The program that makes a batch's states, before it is compiled, and the shapes of those."""
    lowered = seed_program(Start(), mesh).lower(agents, fixed)
    state = jax.tree.map(
        lambda out, sharding: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=sharding),
        lowered.out_info,
        state_shardings(lowered.out_info, mesh),
    )
    return lowered, state


def lower_chunk(
    mesh: Mesh, state: TrainState, agents: Agent, fixed: Config, chunk_updates: int
) -> Any:
    """The program that trains a batch for a chunk, before it is compiled; of shapes, or arrays."""
    chunk = seed_program(
        Advance(chunk_updates), mesh, num_batched=2, donate=True, block=block_size(fixed.num_envs)
    )
    return chunk.lower(state, agents, fixed)


def lower_play(mesh: Mesh, play: Play, state: TrainState, agents: Agent, fixed: Config) -> Any:
    """The program that plays a batch's episodes, before it is compiled."""
    updates = jax.ShapeDtypeStruct((), jnp.int32)
    program = seed_program(play, mesh, num_batched=2)
    return program.lower(state.learner.policy, agents, updates, fixed)


def kept_beside(mesh: Mesh, state: TrainState) -> int:
    """Bytes of the states on each device while episodes are played; the policy is an argument."""
    return (size_of(state) - size_of(state.learner.policy)) // mesh.shape[SEEDS]
