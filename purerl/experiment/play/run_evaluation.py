"""Policies of a run at play: thousands of episodes, and what they come to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.agents import Agent, Play, agents_of
from purerl.checks import require_positive_int, require_seed
from purerl.compute.mapping import pad_seeds, seed_program
from purerl.compute.mesh import seed_mesh
from purerl.config.config import Config
from purerl.evaluation import Evaluation
from purerl.experiment.play.policies import load_states
from purerl.experiment.report.statistics import OverSeeds, known, over_seeds
from purerl.experiment.store import files
from purerl.experiment.store.spec import RunPlan
from purerl.seeds import seed_keys

BLOCK = 256  # episodes of a seed that are played at once, at most


class Played(NamedTuple):
    """An evaluation of saved policies: `[seeds, episodes]`, and the updates they were trained."""

    plan: RunPlan
    seed_ids: tuple[int, ...]
    updates: int
    failed: ndarray
    sampled: bool
    evaluation: Evaluation

    @property
    def kind(self) -> str:
        """How actions were chosen."""
        return "sampled" if self.sampled else "greedy"

    @property
    def returns(self) -> Float[ndarray, " seeds"]:
        """The mean return of each seed, NaN where it had stopped being finite."""
        means = np.asarray(self.evaluation.episode_return).mean(axis=1)
        return np.where(self.failed, np.nan, means)

    @property
    def failed_seeds(self) -> tuple[int, ...]:
        """The ids of the seeds that had stopped being finite."""
        each = zip(self.seed_ids, self.failed, strict=True)
        return tuple(seed for seed, failed in each if failed)

    def figures(self) -> OverSeeds:
        """The figures over the seeds that have not failed.

        **Raises:** `ValueError` where all have.
        """
        if not known(self.returns).size:
            raise ValueError("every seed has failed: there is no policy to evaluate.")
        return over_seeds(self.returns)

    def write(self, path: Path) -> None:
        """Write the figures, and the mean return of each seed, as JSON."""
        figures = {name: each._asdict() for name, each in self.figures()._asdict().items()}
        written = {
            "updates": self.updates,
            "episodes": self.evaluation.episode_return.shape[1],
            "actions": self.kind,
            **figures,
            "num_unfinished": int(np.sum(self.evaluation.num_unfinished)),
            "failed_seeds": self.failed_seeds,
            "seeds": dict(zip(map(str, self.seed_ids), self.returns.tolist(), strict=True)),
        }
        files.write_json(path, written)


def evaluate_run(
    directory: str | Path,
    *,
    episodes: int = 1000,
    sampled: bool = False,
    seeds: Sequence[int] | None = None,
    max_steps: int | None = None,
    config: Config | None = None,
    env: Any = None,
) -> Played:
    """Play episodes with the policies in the newest checkpoint of a run.

    They are played in blocks, with keys that training and its evaluations do not use.

    **Raises:** `ValueError` where there is no checkpoint, a seed is not in the run, or the
    environment has no time limit and `max_steps` is not given.
    """
    require_positive_int("episodes", episodes)
    if max_steps is not None:
        require_positive_int("max_steps", max_steps)
    plan, states, updates = load_states(Path(directory), config, env)
    limit = plan.config.time_limit if max_steps is None else max_steps
    if limit is None:
        raise ValueError("max_steps is required: the environment has no time limit.")
    ids = plan.seed_ids if seeds is None else tuple(seeds)
    if not ids:
        raise ValueError("seeds must name at least one seed.")
    index = np.array([require_seed(seed, plan.seed_ids) for seed in ids])
    policies = jax.tree.map(lambda leaf: leaf[index], states.learner.policy)

    mesh = seed_mesh(num_seeds=len(ids))
    agents, fixed = agents_of(seed_keys(plan.root, ids), plan.config)
    batch: tuple[Any, Agent] = pad_seeds((policies, agents), mesh.size)
    played = []
    for number, size in enumerate(block_sizes(episodes), 1):
        asked = Play(size, limit, greedy=not sampled, sampled=sampled)
        play = seed_program(asked, mesh, num_batched=2)
        # More than any update: the episodes after an update have its number.
        greedy, drawn = play(*batch, np.int32(plan.config.num_updates + number), fixed)
        block = drawn if sampled else greedy
        played.append(jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)], block))
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(block, name) for block in played], axis=1)
        for name in ("episode_return", "episode_length")
    }
    unfinished: Any = np.sum([block.num_unfinished for block in played], axis=0)
    together = Evaluation(**joined, num_unfinished=unfinished)
    failed = np.asarray(states.failed_at)[index] >= 0
    return Played(plan, ids, updates, failed, sampled, together)


def block_sizes(episodes: int) -> list[int]:
    """Episodes in blocks of about one size, of which there are two at most: each is a program."""
    count = -(-episodes // BLOCK)
    small, more = divmod(episodes, count)
    return [small + 1] * more + [small] * (count - more)
