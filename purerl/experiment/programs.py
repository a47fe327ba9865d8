"""The compiled programs of a run, and the loop over their chunks."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from numpy import ndarray

from purerl.config import Config
from purerl.evaluate import Evaluation, evaluate
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
    """The greedy episodes of one agent after training."""

    num_episodes: int
    max_steps: int

    def __call__(self, policy: Any, agent: Agent, fixed: Config) -> Evaluation:
        return evaluate(
            agent.key,
            policy,
            eqx.combine(agent.varied, fixed),
            num_episodes=self.num_episodes,
            max_steps=self.max_steps,
        )


class Programs(NamedTuple):
    """The compiled programs of a run, all for one padded batch of agents."""

    agents: Agent
    fixed: Config
    num_agents: int
    config: Config
    chunk_updates: int
    init: Callable[..., Any]
    chunk: Callable[..., Any]
    evaluate: Callable[..., Any] | None
    seconds: float


class Standing(NamedTuple):
    """Where training stands after a chunk; metrics and `failed_at` are copies on the host."""

    updates: int
    states: TrainState
    metrics: Metrics
    failed_at: ndarray
    seconds: float


def compile_programs(
    keys: Any, config: Config, axes: Config | None, *, chunk_updates: int, episodes: int
) -> Programs:
    """Compile what a run needs for every seed with every setting."""
    start = time.perf_counter()
    mesh = seed_mesh()
    agents, fixed = agents_of(keys, config, axes)
    num_agents = len(agents.key)
    agents = pad_seeds(agents, mesh.size)

    lowered_init = seed_program(Start(), mesh).lower(agents, fixed)
    compiled_init = lowered_init.compile()
    state = jax.tree.map(
        lambda out, sharding: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=sharding),
        lowered_init.out_info,
        compiled_init.output_shardings,
    )
    chunk = seed_program(Advance(chunk_updates), mesh, num_batched=2, donate=True)
    compiled_chunk = chunk.lower(state, agents, fixed).compile()
    compiled_play = None
    if episodes and config.time_limit is not None:
        play = seed_program(Play(episodes, config.time_limit), mesh, num_batched=2)
        compiled_play = play.lower(state.learner.policy, agents, fixed).compile()

    return Programs(
        agents=agents,
        fixed=fixed,
        num_agents=num_agents,
        config=config,
        chunk_updates=chunk_updates,
        init=compiled_init,
        chunk=compiled_chunk,
        evaluate=compiled_play,
        seconds=time.perf_counter() - start,
    )


def train_chunks(programs: Programs) -> Iterator[Standing]:
    """Train from the start to the end, a chunk at a time."""
    start = time.perf_counter()
    states = programs.init(programs.agents, programs.fixed)
    num_agents, size = programs.num_agents, programs.chunk_updates
    for updates in range(size, programs.config.num_updates + 1, size):
        states, metrics = programs.chunk(states, programs.agents, programs.fixed)
        metrics = jax.tree.map(lambda leaf: np.asarray(leaf)[:num_agents].copy(), metrics)
        failed_at = np.asarray(states.failed_at)[:num_agents].copy()
        yield Standing(updates, states, metrics, failed_at, time.perf_counter() - start)


def play_episodes(programs: Programs, states: TrainState) -> tuple[Evaluation | None, float]:
    """The evaluation of trained policies, and the seconds that it took; None without one."""
    if programs.evaluate is None:
        return None, 0.0
    start = time.perf_counter()
    policies = states.learner.policy
    evaluation = programs.evaluate(policies, programs.agents, programs.fixed)
    evaluation = jax.tree.map(lambda leaf: np.asarray(leaf)[: programs.num_agents], evaluation)
    return evaluation, time.perf_counter() - start


def concatenate(records: list[Metrics]) -> Metrics:
    """The metrics of several chunks as one, `[agents, records]`."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *records)
