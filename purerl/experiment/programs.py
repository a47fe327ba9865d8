"""The compiled programs of a run, for as many seeds at once as fit into memory."""

import dataclasses
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key

from purerl.agents import (
    AdvanceAgent,
    Agent,
    EvaluateAgent,
    batch_agents,
    init_agent,
    state_shardings,
)
from purerl.checks import ceil_div, is_typed_key
from purerl.compute.mapping import block_size, pad_seeds, program_over_seeds
from purerl.compute.mesh import SEEDS, place, require_mesh, seed_mesh
from purerl.config.config import Config
from purerl.experiment.hosts.memory import available_bytes, program_bytes, tree_bytes
from purerl.experiment.hosts.processes import all_gather, is_multi_process
from purerl.experiment.hosts.startup import gc_paused
from purerl.experiment.report.format import format_bytes
from purerl.training import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class LoweredPrograms:
    """The programs of a run before they are compiled, for a batch of agents or its shapes."""

    mesh: Mesh
    agents: Agent
    shared: Config  # what is the same for all agents

    @functools.cached_property
    def init(self) -> Any:
        """Makes the states of the batch."""
        program = program_over_seeds(
            init_agent, self.mesh, shardings=state_shardings, with_layout=True
        )
        return program.lower(self.agents, self.shared)

    @functools.cached_property
    def state(self) -> TrainState:
        """The shapes and shardings of the states."""
        shapes = self.init.out_info
        return jax.tree.map(
            lambda out, sharding: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=sharding),
            shapes,
            state_shardings(shapes, self.mesh),
        )

    def chunk(self, num_updates: int) -> Any:
        """Trains the batch for a window of a chunk; it overwrites the states that it is given."""
        program = program_over_seeds(
            AdvanceAgent(num_updates),
            self.mesh,
            num_batched=2,
            donate=True,
            block=block_size(self.shared.num_envs),
            shardings=state_shardings,
            with_layout=True,
        )
        window = jax.ShapeDtypeStruct((2,), jnp.int32)
        return program.lower(self.state, self.agents, window, self.shared)

    def evaluation(self, evaluate: EvaluateAgent) -> Any:
        """Plays the episodes of the batch."""
        updates = jax.ShapeDtypeStruct((), jnp.int32)
        program = program_over_seeds(evaluate, self.mesh, num_batched=2, shardings=state_shardings)
        return program.lower(self.state.learner.policy, self.agents, updates, self.shared)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the states on each device, without the policy, which an evaluation counts."""
        resident = tree_bytes(self.state) - tree_bytes(self.state.learner.policy)
        return resident // self.mesh.shape[SEEDS]


class CompiledPrograms(NamedTuple):
    """The compiled programs of a run, all for one padded batch of agents."""

    mesh: Mesh
    batches: list[Agent]  # padded to the same size, on the devices
    shared: Config
    num_agents: int
    seed_batch: int  # agents of each batch; the last may have fewer
    config: Config
    chunk_updates: int
    init: Callable[..., Any]
    chunk: Callable[..., Any]
    evaluate: Callable[..., Any] | None
    state: TrainState  # shapes and shardings of a batch's states
    memory: int  # bytes that the largest program needs on each device
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
) -> CompiledPrograms:
    """Compile what a run needs for every seed with every setting.

    Agents that do not fit into memory together are trained in batches. Without `mesh`, seeds are
    spread over all devices of all processes.

    **Raises:** `ValueError` where `seed_batch` agents, or one a device, do not fit into memory, or
    the mesh does not fit the config.
    """
    start = time.perf_counter()
    agents, shared = batch_agents(keys, config, axes)
    num_agents = len(agents.key)
    if mesh is None:  # no more devices than agents, but some of each process
        mesh = seed_mesh(jax.devices(), None if is_multi_process() else num_agents)
    mesh = require_mesh(mesh, config.num_envs)
    num_devices = mesh.shape[SEEDS]
    limit_name = "memory_limit" if memory_limit is not None else "the memory that is free"
    evaluate = None
    if episodes and config.time_limit is not None:
        evaluate = EvaluateAgent(episodes, config.time_limit, sampled=sampled)

    compiled = functools.partial(_compile, agents, shared, config, chunk_updates, evaluate, mesh)
    own_limit = available_bytes(mesh.local_devices) if memory_limit is None else memory_limit
    limit = min((each for each in all_gather(own_limit) if each is not None), default=None)
    programs = compiled(num_agents if seed_batch is None else seed_batch)
    if limit is not None and programs.memory > limit:
        one_a_device = compiled(num_devices)
        fits = _largest_seed_batch(programs, one_a_device, limit, num_devices, limit_name)
        while (fitted := compiled(fits)).memory > limit and fits > num_devices:  # a wrong estimate
            fits -= max(num_devices, fits // 8 // num_devices * num_devices)
        if seed_batch is not None:
            raise ValueError(
                f"seed_batch = {seed_batch} needs {format_bytes(programs.memory)} on each device, "
                f"and {limit_name} is {format_bytes(limit)}; use {fits} or fewer."
            )
        programs = fitted
    return programs._replace(seconds=time.perf_counter() - start)


def _largest_seed_batch(
    large: CompiledPrograms, small: CompiledPrograms, limit: int, multiple: int, limit_name: str
) -> int:
    """Estimate the agents of a batch that fits: memory grows linearly from small to large."""
    if small.memory > limit:
        raise ValueError(
            f"{limit_name} = {format_bytes(limit)} on each device is less than the "
            f"{format_bytes(small.memory)} that one seed a device needs; "
            f"use fewer num_envs or a shorter rollout_length."
        )
    extra_agents = max(1, large.seed_batch - small.seed_batch)
    bytes_per_agent = max(1.0, (large.memory - small.memory) / extra_agents)
    fits = small.seed_batch + int((limit - small.memory) / bytes_per_agent)
    fits = max(multiple, fits // multiple * multiple)
    num_batches = ceil_div(large.num_agents, fits)
    return ceil_div(large.num_agents, num_batches * multiple) * multiple  # of about equal size


def _require_whole_bytes(state: TrainState) -> None:
    """Refuse arrays of fewer than 8 bits a number: no compiled program takes what another gives."""
    for path, leaf in jax.tree.leaves_with_path(state):
        if not is_typed_key(leaf) and leaf.dtype != bool and _bits(leaf.dtype) < 8:
            name = jax.tree_util.keystr(path).removeprefix(".")
            raise ValueError(
                f"the state's {name} is {leaf.dtype}, of which jax hands none from one compiled "
                f"program to the next; keep it in 8 bits, and compute in {leaf.dtype}."
            )


def _bits(dtype: Any) -> int:
    info = jnp.finfo if jnp.issubdtype(dtype, jnp.inexact) else jnp.iinfo
    return info(dtype).bits


def _compile(
    agents: Agent,
    shared: Config,
    config: Config,
    chunk_updates: int,
    evaluate: EvaluateAgent | None,
    mesh: Mesh,
    size: int,
) -> CompiledPrograms:
    num_agents, num_devices = len(agents.key), mesh.shape[SEEDS]
    size = min(size, num_agents)
    padded_size = ceil_div(size, num_devices) * num_devices

    def make_batch(start: int) -> Agent:
        batch = jax.tree.map(lambda leaf: leaf[start : start + size], agents)
        return place(pad_seeds(batch, padded_size), NamedSharding(mesh, P(SEEDS)))

    batches = [make_batch(start) for start in range(0, num_agents, size)]
    lowered = LoweredPrograms(mesh, batches[0], shared)
    _require_whole_bytes(lowered.state)
    # One program is traced while another compiles: the compiler does not hold the GIL.
    with gc_paused(), ThreadPoolExecutor(max_workers=2) as threads:
        init_compiling = threads.submit(lowered.init.compile)
        chunk_compiling = threads.submit(lowered.chunk(chunk_updates).compile)
        evaluation = None if evaluate is None else lowered.evaluation(evaluate).compile()
        init, chunk = init_compiling.result(), chunk_compiling.result()
    memory = max(program_bytes(init), program_bytes(chunk))
    if evaluation is not None:
        resident = lowered.resident_bytes if len(batches) == 1 else 0
        memory = max(memory, program_bytes(evaluation) + resident)
    return CompiledPrograms(
        mesh=mesh,
        batches=batches,
        shared=shared,
        num_agents=num_agents,
        seed_batch=size,
        config=config,
        chunk_updates=chunk_updates,
        init=init,
        chunk=chunk,
        evaluate=evaluation,
        state=lowered.state,
        memory=memory,
        seconds=0.0,
    )
