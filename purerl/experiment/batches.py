"""The seeds of a run in batches: trained a chunk at a time, evaluated, and merged on the host."""

import contextlib
import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree
from numpy import ndarray

from purerl.agents import Agent
from purerl.checks import ceil_div, is_typed_key, option
from purerl.compute.mapping import pad_seeds
from purerl.compute.mesh import SEEDS, place
from purerl.compute.trees import divide_on_host
from purerl.evaluation import EvaluationPair
from purerl.experiment.hosts.memory import available_bytes
from purerl.experiment.hosts.processes import gather_to_host, is_multi_process
from purerl.experiment.hosts.stopping import RunError, call_interruptibly
from purerl.experiment.programs import CompiledPrograms
from purerl.training import TrainState, attempt_step
from purerl.types import Metrics


class ChunkResult(NamedTuple):
    """Where training stands after a chunk; metrics and `failed_at` are copies on the host."""

    updates: int
    states: list[TrainState]  # of each batch; valid until the next chunk
    metrics: Metrics
    record_updates: ndarray  # updates at the end of each record
    failed_at: ndarray
    seconds: float  # of training so far, in this process


class SeedBatches:
    """All batches of a run, on the devices and on the host.

    Every batch advances one chunk before any starts the next. The states of several batches wait on
    the host, so that the devices hold one.
    """

    def __init__(self, programs: CompiledPrograms):
        self.programs = programs
        self._batches = programs.batches

    def init(self) -> list[TrainState]:
        """The states of all batches before the first update."""
        return [call_interruptibly(self._init, batch) for batch in self._batches]

    def train(
        self,
        start: int = 0,
        states: list[TrainState] | None = None,
        intervals: Collection[int] = (),
    ) -> Iterator[ChunkResult]:
        """Train to the end, a chunk at a time; `seconds` leaves out what happens between.

        A chunk ends at a multiple of its length or of an interval, or with the budget. One that
        ends early is the same program, so that intervals change nothing of what is trained.
        """
        states = self.init() if states is None else states
        seconds, size = 0.0, self.programs.chunk_updates
        config = self.programs.config
        while start < config.num_updates:
            base = start // size * size
            ends = [(start // every + 1) * every for every in (size, *intervals)]
            updates = min(*ends, config.num_updates)
            window, start = np.array([start - base, updates - base], np.int32), updates
            recorded = []
            begin = time.perf_counter()
            for i, batch in enumerate(self._batches):
                states[i], metrics = call_interruptibly(self._advance, states[i], batch, window)
                recorded.append(metrics)
            seconds += time.perf_counter() - begin
            metrics, failed_at = self.merge(recorded), self.failed_at(states)
            is_debugged = getattr(jax.config, "jax_debug_nans") and not is_multi_process()  # noqa: B009
            if is_debugged and np.any(failed_at >= 0):
                self._raise_at_nan(states, int(np.argmax(failed_at >= 0)))
            record_updates = base + self._record_ends(window)
            yield ChunkResult(updates, states, metrics, record_updates, failed_at, seconds)

    def _raise_at_nan(self, states: list[TrainState], index: int) -> None:
        """Repeat the update in which an agent failed, one operation after another.

        With `JAX_DEBUG_NANS`, jax raises at the operation that makes a NaN, which within a compiled
        program it does not see.
        """
        batch, position = divmod(index, self.programs.seed_batch)
        frozen = states[batch], self._batches[batch]
        state, agent = jax.tree.map(lambda leaf: leaf[position], frozen)
        with jax.disable_jit():
            attempt_step(state, eqx.combine(agent.per_agent, self.programs.shared))

    def evaluate(self, states: list[TrainState], updates: int) -> EvaluationPair:
        """Play greedy and sampled episodes with every agent; None where the run plays none."""
        if self.programs.evaluate is None:
            return EvaluationPair(None, None)
        pairs = zip(states, self._batches, strict=True)
        return self.merge([call_interruptibly(self._evaluate, *pair, updates) for pair in pairs])

    def failed_at(self, states: list[TrainState]) -> ndarray:
        """The update at which each agent stopped being finite, −1 where it is; on the host."""
        return self.merge([state.failed_at for state in states])

    def merge(self, batches: list[PyTree]) -> PyTree:
        """Join batches as `[agents, ...]`, on the host of every process and without the padding.

        The host cuts the padding: a cut of a sharded array is a program in which devices wait for
        each other, and several such programs at a time can deadlock.
        """

        def join(*leaves: Any) -> Any:
            if is_typed_key(leaves[0]):
                data = join(*map(jax.random.key_data, leaves))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
            counts = np.full(len(leaves), self.programs.seed_batch)
            counts[-1] = self.programs.num_agents - self.programs.seed_batch * (len(leaves) - 1)
            pairs = zip(leaves, counts, strict=True)
            return np.concatenate([gather_to_host(leaf)[:count] for leaf, count in pairs])

        return jax.tree.map(join, *batches)

    def split(self, states: TrainState) -> list[TrainState]:
        """The states of all agents as padded batches, each where it is kept between chunks.

        They get the structure of the programs': in two traces of `init`, a network that makes a
        function of its own has two. Names, shapes and dtypes of their leaves are the same.
        """
        structure = jax.tree.structure(self.programs.state)
        states = jax.tree.unflatten(structure, jax.tree.leaves(states))
        size, multiple = self.programs.seed_batch, len(self._batches[0].key)
        batches = [
            pad_seeds(jax.tree.map(lambda leaf, i=i: leaf[i : i + size], states), multiple)
            for i in range(0, self.programs.num_agents, size)
        ]
        return batches if len(batches) > 1 else [_place_like(batches[0], self.programs.state)]

    def states_to_save(self, states: list[TrainState]) -> TrainState:
        """The states to save: the share of this process, or all of them where some are padding."""
        if is_multi_process() and len(states[0].key) == self.programs.num_agents:
            return states[0]
        return self.merge(states)

    def _init(self, batch: Agent) -> TrainState:
        with self._explaining_out_of_memory():
            state = self.programs.init(batch, self.programs.shared)
            return self._offload(jax.block_until_ready(state))

    def _advance(
        self, state: TrainState, batch: Agent, window: ndarray
    ) -> tuple[TrainState, Metrics]:
        programs = self.programs
        with self._explaining_out_of_memory():
            state = _place_like(state, programs.state)
            state, records = programs.chunk(state, batch, window, programs.shared)
            records = jax.tree.map(lambda leaf: np.array(gather_to_host(leaf)), records)
            metrics = divide_on_host(records)
            of_window = slice(*self._records_of(window))
            metrics = jax.tree.map(lambda leaf: leaf[:, of_window], metrics)
            return self._offload(jax.block_until_ready(state)), metrics

    def _records_of(self, window: ndarray) -> tuple[int, int]:
        """The records of a chunk that updates of a window are in: the first, the one behind."""
        every = self.programs.config.log_every
        return int(window[0]) // every, ceil_div(int(window[1]), every)

    def _record_ends(self, window: ndarray) -> ndarray:
        """The updates of a chunk at the end of each record of a window."""
        first, behind = self._records_of(window)
        ends = np.arange(first + 1, behind + 1) * self.programs.config.log_every
        return np.minimum(ends, window[1])

    def _evaluate(self, state: TrainState, batch: Agent, updates: int) -> EvaluationPair:
        """Play the episodes of one batch, with only the policy of its state on the devices."""
        programs = self.programs
        assert programs.evaluate is not None
        with self._explaining_out_of_memory():
            policy = _place_like(state.learner.policy, programs.state.learner.policy)
            episodes = programs.evaluate(policy, batch, np.int32(updates), programs.shared)
            return jax.tree.map(gather_to_host, episodes)

    def _offload(self, state: TrainState) -> TrainState:
        """Move a state to where it waits for its next chunk: with several batches, the host."""
        if len(self._batches) == 1:
            return state

        def to_host(leaf: jax.Array) -> Any:
            if is_typed_key(leaf):
                return leaf
            if leaf.is_fully_addressable:
                return np.asarray(leaf)
            return jax.device_put(leaf, leaf.sharding.with_memory_kind("pinned_host"))

        return jax.tree.map(to_host, state)

    @contextlib.contextmanager
    def _explaining_out_of_memory(self) -> Iterator[None]:
        """Where the devices run out of memory, raise `RunError` with a `seed_batch` that fits."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise RunError(_out_of_memory(self.programs)) from error


def _out_of_memory(programs: CompiledPrograms) -> str:
    num_devices = programs.mesh.shape[SEEDS]
    seeds_per_device = ceil_div(programs.seed_batch, num_devices)
    problem = f"out of memory with {programs.seed_batch} seeds at once"
    if seeds_per_device == 1:
        return f"{problem}; that is one a device: use fewer num_envs or a shorter rollout_length"
    limit = available_bytes(programs.mesh.local_devices)
    share = 0.5 if limit is None else min(limit / programs.memory, 0.5)
    fits = max(1, int(seeds_per_device * share)) * num_devices
    return f"{problem}; train them in batches: {option('seed_batch', fits)}"


def _place_like(tree: PyTree, like: PyTree) -> PyTree:
    """Put arrays on the devices, sharded as those of `like`."""
    return place(tree, jax.tree.map(lambda leaf: leaf.sharding, like))
