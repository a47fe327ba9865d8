"""The loop over the chunks of a run: all batches of seeds, on the devices and on the host."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpy import ndarray

from purerl.agents import Agent
from purerl.compute.mapping import pad_seeds
from purerl.compute.mesh import SEEDS, place
from purerl.evaluation import Evaluation
from purerl.experiment.hosts.memory import available
from purerl.experiment.hosts.processes import several, to_host
from purerl.experiment.hosts.stopping import RunError, interruptible
from purerl.experiment.programs import Programs
from purerl.training import TrainState
from purerl.types import Metrics


class Standing(NamedTuple):
    """Where training stands after a chunk; metrics and `failed_at` are copies on the host."""

    updates: int
    states: list[TrainState]
    """Of each batch; only good until the next chunk."""
    metrics: Metrics
    failed_at: ndarray
    seconds: float
    """Of training so far, in this process."""


def train_chunks(
    programs: Programs, start: int = 0, states: list[TrainState] | None = None
) -> Iterator[Standing]:
    """Train to the end, a chunk at a time; from the beginning, or on from given states.

    Every batch advances one chunk before any starts the next. The states of several batches wait on
    the host, so that the devices hold one. What is done between chunks enters no `seconds`.
    """
    begin = time.perf_counter()
    if states is None:
        states = [interruptible(_begin, programs, batch) for batch in programs.batches]
    seconds = time.perf_counter() - begin
    size = programs.chunk_updates
    for updates in range(start + size, programs.config.num_updates + 1, size):
        recorded = []
        begin = time.perf_counter()
        for i, batch in enumerate(programs.batches):
            states[i], metrics = interruptible(_advance, programs, states[i], batch)
            recorded.append(metrics)
        seconds += time.perf_counter() - begin
        yield Standing(
            updates, states, join(programs, recorded), failed_at(programs, states), seconds
        )


def failed_at(programs: Programs, states: list[TrainState]) -> ndarray:
    """The update at which each agent stopped being finite, −1 where it is; on the host."""
    return join(programs, [state.failed_at for state in states])


def _begin(programs: Programs, batch: Agent) -> TrainState:
    with _memory_told(programs):
        state = jax.block_until_ready(programs.init(batch, programs.fixed))
        return _wait_for_turn(programs, state)


def _advance(programs: Programs, state: TrainState, batch: Agent) -> tuple[TrainState, Metrics]:
    """A chunk of one batch, computed to its end."""
    with _memory_told(programs):
        state, metrics = programs.chunk(_place(state, programs.state), batch, programs.fixed)
        metrics = jax.tree.map(lambda leaf: np.array(to_host(leaf)), metrics)
        return _wait_for_turn(programs, jax.block_until_ready(state)), metrics


def _play(programs: Programs, state: TrainState, batch: Agent, updates: int) -> Any:
    """The episodes of one batch; of its state, the policy alone is on the devices."""
    assert programs.evaluate is not None
    with _memory_told(programs):
        policy = _place(state.learner.policy, programs.state.learner.policy)
        episodes = programs.evaluate(policy, batch, np.int32(updates), programs.fixed)
        return jax.tree.map(to_host, episodes)


@contextlib.contextmanager
def _memory_told(programs: Programs) -> Iterator[None]:
    """Say how many seeds to train at once where the memory of the devices does not suffice.

    **Raises:** `RunError` then.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise RunError(_out_of_memory(programs)) from error


def _out_of_memory(programs: Programs) -> str:
    num_devices = programs.mesh.shape[SEEDS]
    each = -(-programs.seed_batch // num_devices)  # seeds on a device
    told = f"out of memory with {programs.seed_batch} seeds at once; "
    if each == 1:
        return told + "that is one a device: use fewer num_envs or a shorter rollout_length"
    limit = available(programs.mesh.local_devices)
    share = 0.5 if limit is None else min(limit / programs.memory, 0.5)
    return f"{told}train them in batches: --seed-batch {max(1, int(each * share)) * num_devices}"


def _wait_for_turn(programs: Programs, state: TrainState) -> TrainState:
    """A state as it is kept between chunks: on the host where there are several batches."""
    if len(programs.batches) == 1:
        return state

    def one(leaf: jax.Array) -> Any:
        if _is_key(leaf):
            return leaf
        if leaf.is_fully_addressable:
            return np.asarray(leaf)
        return jax.device_put(leaf, leaf.sharding.with_memory_kind("pinned_host"))

    return jax.tree.map(one, state)


def _place(tree: PyTree, like: PyTree) -> PyTree:
    """Arrays on the devices, sharded as those that they stand for."""
    return place(tree, jax.tree.map(lambda leaf: leaf.sharding, like))


def play_episodes(
    programs: Programs, states: list[TrainState], updates: int
) -> tuple[Evaluation | None, Evaluation | None]:
    """Greedy episodes of every agent, and sampled ones, each None where none are to be played."""
    if programs.evaluate is None:
        return None, None
    pairs = zip(states, programs.batches, strict=True)
    played = [interruptible(_play, programs, state, batch, updates) for state, batch in pairs]
    return join(programs, played)


def join(programs: Programs, batches: list[PyTree]) -> PyTree:
    """What batches have come to as one, `[agents, ...]`, on the host and without the padding.

    It is cut there: on sharded arrays, each cut is a program in which the devices wait for each
    other, and several at a time can wait for ever. With several processes each comes to the whole.
    """

    def one(*leaves: Any) -> Any:
        if _is_key(leaves[0]):
            data = one(*map(jax.random.key_data, leaves))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
        counts = np.full(len(leaves), programs.seed_batch)
        counts[-1] = programs.num_agents - programs.seed_batch * (len(leaves) - 1)
        pairs = zip(leaves, counts, strict=True)
        return np.concatenate([to_host(leaf)[:count] for leaf, count in pairs])

    return jax.tree.map(one, *batches)


def to_save(programs: Programs, states: list[TrainState]) -> TrainState:
    """All states as they are saved: each process its share, where that is nobody's padding."""
    if several() and len(states[0].key) == programs.num_agents:
        return states[0]
    return join(programs, states)


def divide(programs: Programs, states: TrainState) -> list[TrainState]:
    """The states of all agents as padded batches, each where it is kept between chunks."""
    size = programs.seed_batch
    multiple = len(programs.batches[0].key)
    batches = []
    for i in range(0, programs.num_agents, size):
        batch = pad_seeds(jax.tree.map(lambda leaf, i=i: leaf[i : i + size], states), multiple)
        alone = len(programs.batches) == 1
        batches.append(_place(batch, programs.state) if alone else batch)
    return batches


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
