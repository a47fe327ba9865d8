"""Agents that fail: what first was not finite in them, and the end of a run that has none left."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy import ndarray

from purerl.agents import batch_agents
from purerl.compute.mapping import map_seeds
from purerl.config.config import Config
from purerl.envs.contract import one_line
from purerl.experiment.diagnosis import IN_A_STEP, PARTS, replay_agent
from purerl.experiment.hosts.processes import mark_raised_by_all, on_main_process
from purerl.experiment.hosts.stopping import RunError, call_interruptibly
from purerl.experiment.report.format import format_list, format_ranges
from purerl.experiment.report.run_result import Run
from purerl.experiment.store.spec import RunSpec
from purerl.seeds import seed_keys
from purerl.training import TrainState

MAX_REPLAYED = 8  # failed agents: more would hardly say more
NOT_AGAIN = "nothing when replayed"  # by rounding, the replay being another program
NOT_KNOWN = "not known"


class AllAgentsFailed(RunError):
    """A run or a sweep that has ended since all its agents failed; `run` is what it came to."""

    def __init__(self, message: str, run: Any):
        super().__init__(message)
        self.run = run


def has_agents_left(failed_at: Any) -> bool:
    """Whether an agent is still finite."""
    return not np.all(np.asarray(failed_at) >= 0)


def find_causes(spec: RunSpec, states: TrainState, axes: Config | None = None) -> dict[int, str]:
    """What first was not finite, by the index of an agent, of the first few that failed.

    **Arguments:** `states` are those of all agents, on the host; `axes` are those of a sweep.
    """
    failed = np.flatnonzero(np.asarray(states.failed_at) >= 0)[:MAX_REPLAYED].tolist()
    return replayed_causes(spec, states, failed, axes) if failed else {}


def replayed_causes(
    spec: RunSpec, states: TrainState, indices: list[int], axes: Config | None = None
) -> dict[int, str]:
    """What first is not finite in the next update of some agents, by their index.

    That takes a program of its own. With several processes all must call it; the main one replays.
    """

    def replay() -> list[str]:
        agents, shared = batch_agents(seed_keys(spec.root, spec.seed_ids), spec.config, axes)
        frozen = jax.tree.map(lambda leaf: leaf[np.array(indices)], (states, agents))
        try:
            replayed = functools.partial(map_seeds, with_layout=True)
            found = call_interruptibly(replayed, replay_agent, frozen, shared)
            parts, steps = (np.asarray(each).tolist() for each in found)
            return list(map(_in_words, parts, steps))
        except jax.errors.JaxRuntimeError as error:  # such as too little memory; the run counts
            warnings.warn(f"what failed could not be replayed: {one_line(error)}", stacklevel=4)
            return [NOT_KNOWN] * len(indices)

    return dict(zip(indices, on_main_process(replay), strict=True))


def agent_name(spec: RunSpec, index: int, axes: Config | None = None) -> str:
    """`seed 3`, or in a sweep `setting 1 seed 3`."""
    setting, seed = divmod(index, len(spec.seed_ids))
    name = f"seed {spec.seed_ids[seed]}"
    return name if axes is None else f"setting {setting} {name}"


def _in_words(part: int, step: int) -> str:
    words = (*PARTS, NOT_AGAIN)[part]
    return f"{words} at step {step}" if part < len(IN_A_STEP) else words


def require_agents_left(result: Run) -> Run:
    """The run, where an agent of it is left; else raise `AllAgentsFailed`."""
    failed_at = np.asarray(result.states.failed_at)
    if has_agents_left(failed_at):
        return result
    raise all_failed(result, failed_at, list(result.causes.values()), result.config)


def all_failed(
    result: Any, failed_at: ndarray, causes: Sequence[str], config: Config
) -> AllAgentsFailed:
    """The error of a run or a sweep of which no agent is left; all processes raise it."""
    updates = format_ranges(sorted({*failed_at.tolist()}))
    number = "the only agent" if len(failed_at) == 1 else f"all {len(failed_at)} agents"
    return mark_raised_by_all(
        AllAgentsFailed(
            f"{number} failed, in update {updates} of {config.num_updates}; first not finite: "
            f"{format_list([*dict.fromkeys(causes)], most=3)}; nothing is left to train, and what "
            f"it came to is in {result.directory}",
            result,
        )
    )
