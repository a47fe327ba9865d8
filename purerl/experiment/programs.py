"""The compiled programs of a run, and the loop over their chunks."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy import ndarray

from purerl.config import Config
from purerl.evaluate import Evaluation, evaluate
from purerl.experiment.errors import RunError
from purerl.experiment.memory import available, needed, show_bytes
from purerl.experiment.signals import interruptible
from purerl.seeds import Agent, agents_of, pad_seeds, seed_mesh, seed_program
from purerl.train import TrainState, advance, init
from purerl.types import Metrics


@dataclasses.dataclass(frozen=True)
class Start:
    """The state of one agent before training. It is a value, so that equal ones are one program."""

    def __call__(self, agent: Agent, fixed: Config) -> TrainState:
        return init(agent.key, eqx.combine(agent.varied, fixed))


@dataclasses.dataclass(frozen=True)
class Advance:
    """A chunk of training of one agent."""

    num_updates: int

    def __call__(
        self, state: TrainState, agent: Agent, fixed: Config
    ) -> tuple[TrainState, Metrics]:
        return advance(state, eqx.combine(agent.varied, fixed), self.num_updates)


@dataclasses.dataclass(frozen=True)
class Play:
    """Greedy episodes of one agent, and as many with sampled actions where `sampled` says so.

    The keys are those of the agent and of the updates that it was trained for.
    """

    num_episodes: int
    max_steps: int
    sampled: bool = False

    def __call__(
        self, policy: Any, agent: Agent, updates: Int[Array, ""], fixed: Config
    ) -> tuple[Evaluation, Evaluation | None]:
        config = eqx.combine(agent.varied, fixed)
        greedy_key, sampled_key = jax.random.split(jax.random.fold_in(agent.key, updates))

        def play(key, greedy):
            how = {"num_episodes": self.num_episodes, "max_steps": self.max_steps}
            return evaluate(key, policy, config, greedy=greedy, **how)

        return play(greedy_key, True), play(sampled_key, False) if self.sampled else None


class Programs(NamedTuple):
    """The compiled programs of a run, all for one padded batch of agents."""

    batches: list[Agent]
    """Each padded to the same size."""
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


class Standing(NamedTuple):
    """Where training stands after a chunk; metrics and `failed_at` are copies on the host."""

    updates: int
    states: list[TrainState]
    """Of each batch; only good until the next chunk."""
    metrics: Metrics
    failed_at: ndarray
    seconds: float


def compile_programs(
    keys: Any,
    config: Config,
    axes: Config | None,
    *,
    chunk_updates: int,
    episodes: int,
    sampled: bool = False,
    seed_batch: int | None = None,
    memory_limit: int | None = None,
) -> Programs:
    """Compile what a run needs for every seed with every setting.

    Agents that do not fit into the memory of the devices together are trained in batches.

    **Raises:** `ValueError` where `seed_batch` agents do not fit, or not even one a device does.
    """
    start = time.perf_counter()
    mesh = seed_mesh()
    agents, fixed = agents_of(keys, config, axes)
    num_agents = len(agents.key)
    play = None
    if episodes and config.time_limit is not None:
        play = Play(episodes, config.time_limit, sampled)

    def compiled(size: int) -> Programs:
        return _compile(agents, fixed, config, chunk_updates, play, min(size, num_agents), mesh)

    limit = available(mesh.devices.flat[0]) if memory_limit is None else memory_limit
    programs = compiled(num_agents if seed_batch is None else seed_batch)
    if limit is not None and programs.memory > limit:
        fits = _largest_batch(programs, compiled(mesh.size), limit, mesh.size)
        while (fitted := compiled(fits)).memory > limit and fits > mesh.size:
            fits -= max(mesh.size, fits // 8 // mesh.size * mesh.size)  # a little beside the line
        if seed_batch is not None:
            raise ValueError(
                f"seed_batch = {seed_batch} needs {show_bytes(programs.memory)} on each device, "
                f"where {show_bytes(limit)} may be used; use {fits} or fewer."
            )
        programs = fitted
    return programs._replace(seconds=time.perf_counter() - start)


def _largest_batch(large: Programs, small: Programs, limit: int, multiple: int) -> int:
    """The agents of a batch that fits, from the memory of two: it grows by the same with each."""
    if small.memory > limit:
        raise ValueError(
            f"memory_limit = {show_bytes(limit)} on each device is less than the "
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
    mesh: Any,
) -> Programs:
    num_agents = len(agents.key)
    batches = [
        pad_seeds(jax.tree.map(lambda leaf, i=i: leaf[i : i + size], agents), -(-size // m) * m)
        for m in [mesh.size]
        for i in range(0, num_agents, size)
    ]
    first = batches[0]
    lowered_init = seed_program(Start(), mesh).lower(first, fixed)
    compiled_init = lowered_init.compile()
    state = jax.tree.map(
        lambda out, sharding: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=sharding),
        lowered_init.out_info,
        compiled_init.output_shardings,
    )
    compiled_chunk = lower_chunk(mesh, state, first, fixed, chunk_updates).compile()
    compiled_play = None
    if play is not None:
        program = seed_program(play, mesh, num_batched=2)
        updates = jax.ShapeDtypeStruct((), jnp.int32)
        compiled_play = program.lower(state.learner.policy, first, updates, fixed).compile()
    parts = (compiled_init, compiled_chunk, compiled_play)
    return Programs(
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
        memory=max(needed(part) for part in parts if part is not None),
        seconds=0.0,
    )


def lower_chunk(
    mesh: Any, state: TrainState, agents: Agent, fixed: Config, chunk_updates: int
) -> Any:
    """The program that trains a batch for a chunk, before it is compiled; of shapes, or arrays."""
    chunk = seed_program(Advance(chunk_updates), mesh, num_batched=2, donate=True)
    return chunk.lower(state, agents, fixed)


def train_chunks(
    programs: Programs, start: int = 0, states: list[TrainState] | None = None
) -> Iterator[Standing]:
    """Train to the end, a chunk at a time; from the beginning, or on from given states.

    Every batch advances one chunk before any starts the next. The states of several batches wait on
    the host, so that the devices hold one.
    """
    begin = time.perf_counter()
    if states is None:
        fresh = (programs.init(batch, programs.fixed) for batch in programs.batches)
        states = [_wait_for_turn(programs, state) for state in fresh]
    size = programs.chunk_updates
    for updates in range(start + size, programs.config.num_updates + 1, size):
        recorded = []
        for i, batch in enumerate(programs.batches):
            states[i], metrics = interruptible(_advance, programs, states[i], batch)
            recorded.append(metrics)
        metrics = join(programs, recorded)
        failed_at = join(programs, [np.array(state.failed_at) for state in states])
        yield Standing(updates, states, metrics, failed_at, time.perf_counter() - begin)


def _advance(programs: Programs, state: TrainState, batch: Agent) -> tuple[TrainState, Metrics]:
    """A chunk of one batch, computed to its end."""
    try:
        state, metrics = programs.chunk(_on_devices(programs, state), batch, programs.fixed)
        metrics = jax.tree.map(np.array, metrics)
        return _wait_for_turn(programs, jax.block_until_ready(state)), metrics
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise RunError(
            f"out of memory with {programs.seed_batch} seeds at once; "
            f"train them in batches: --seed-batch {max(1, programs.seed_batch // 2)}"
        ) from error


def _wait_for_turn(programs: Programs, state: TrainState) -> TrainState:
    """A state as it is kept between chunks: on the host where there are several batches."""
    if len(programs.batches) == 1:
        return state
    return jax.tree.map(lambda leaf: leaf if _is_key(leaf) else np.asarray(leaf), state)


def _on_devices(programs: Programs, state: TrainState) -> TrainState:
    def place(leaf: Any, like: Any) -> Any:
        return jax.device_put(leaf, like.sharding)

    return jax.tree.map(place, state, programs.state)


def play_episodes(
    programs: Programs, states: list[TrainState], updates: int
) -> tuple[Evaluation | None, Evaluation | None]:
    """Greedy episodes of every agent, and sampled ones, each None where none are to be played."""
    if programs.evaluate is None:
        return None, None
    played = []
    for state, batch in zip(states, programs.batches, strict=True):
        policy = _on_devices(programs, state).learner.policy
        episodes = programs.evaluate(policy, batch, np.int32(updates), programs.fixed)
        played.append(interruptible(jax.tree.map, np.asarray, episodes))
    return join(programs, played)


def join(programs: Programs, batches: list[PyTree]) -> PyTree:
    """What batches have come to as one, `[agents, ...]`, without the padding."""
    counts = [programs.seed_batch] * len(batches)
    counts[-1] = programs.num_agents - programs.seed_batch * (len(batches) - 1)

    def one(*leaves: Any) -> Any:
        cut = [leaf[:count] for leaf, count in zip(leaves, counts, strict=True)]
        if len(cut) == 1:
            return cut[0]
        return jnp.concatenate(cut) if _is_key(cut[0]) else np.concatenate(cut)

    return jax.tree.map(one, *batches)


def divide(programs: Programs, states: TrainState) -> list[TrainState]:
    """The states of all agents as padded batches, each where it is kept between chunks."""
    size = programs.seed_batch
    multiple = len(programs.batches[0].key)
    batches = []
    for i in range(0, programs.num_agents, size):
        batch = pad_seeds(jax.tree.map(lambda leaf, i=i: leaf[i : i + size], states), multiple)
        alone = len(programs.batches) == 1
        batches.append(_on_devices(programs, batch) if alone else batch)
    return batches


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
