"""Evaluates the policies of a run on many episodes, in blocks."""

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.agents import Agent, EvaluateAgent, batch_agents
from purerl.checks import ceil_div, require_int32, seed_index
from purerl.compute.mapping import pad_seeds, program_over_seeds
from purerl.compute.mesh import seed_mesh
from purerl.config.config import Config
from purerl.evaluation import Evaluation
from purerl.experiment.hosts.memory import host_bytes, require_bytes
from purerl.experiment.play.policies import LoadedRun
from purerl.experiment.report.statistics import (
    ReturnStatistics,
    count_near_target,
    drop_nan,
    return_statistics,
    seed_noise,
)
from purerl.experiment.store import files
from purerl.experiment.store.spec import RunSpec
from purerl.seeds import seed_keys

MAX_BLOCK_EPISODES = 256  # of a seed, played at once


class RunEvaluation(NamedTuple):
    """An evaluation, `[seeds, episodes]`, of policies that were trained for `updates`."""

    spec: RunSpec
    seed_ids: tuple[int, ...]
    updates: int
    failed: ndarray
    sampled: bool
    evaluation: Evaluation

    @property
    def actions(self) -> str:
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
        return tuple(compress(self.seed_ids, self.failed))

    @property
    def num_near_target(self) -> int | None:
        """How many seeds lie within their own noise of the target; None without one."""
        noise = seed_noise(np.asarray(self.evaluation.episode_return))
        return count_near_target(self.returns, noise, self.spec.target_return)

    @property
    def num_unfinished(self) -> int:
        """Episodes that `max_steps` cut off, of the seeds that have not failed."""
        return int(np.sum(np.where(self.failed, 0, self.evaluation.num_unfinished)))

    def statistics(self) -> ReturnStatistics:
        """Statistics over the seeds that have not failed.

        **Raises:** `ValueError` where all have.
        """
        if not drop_nan(self.returns).size:
            raise ValueError("every seed has failed: there is no policy to evaluate.")
        return return_statistics(self.returns)

    def write(self, path: Path) -> None:
        """Write the statistics, and the mean return of each seed, as JSON."""
        statistics = self.statistics()._asdict()
        contents = {
            **self.spec.identity._asdict(),
            "updates": self.updates,
            "episodes": self.evaluation.episode_return.shape[1],
            "actions": self.actions,
            **{name: interval._asdict() for name, interval in statistics.items()},
            "num_unfinished": self.num_unfinished,
            "failed_seeds": self.failed_seeds,
            "seeds": dict(zip(map(str, self.seed_ids), self.returns.tolist(), strict=True)),
        }
        files.write_json(path, contents)


def evaluate_run(
    directory: str | Path,
    *,
    episodes: int = 1000,
    sampled: bool = False,
    seeds: Sequence[int] | None = None,
    max_steps: int | None = None,
    config: Config | None = None,
    env: Any = None,
) -> RunEvaluation:
    """Play episodes with the policies in the newest checkpoint of a run.

    Their keys are others than those of training and of its evaluations.

    **Raises:** `ValueError` where there is no checkpoint, a seed is not in the run, or the
    environment has no time limit and `max_steps` is not given.
    """
    require_int32("episodes", episodes)
    if max_steps is not None:
        require_int32("max_steps", max_steps)
    loaded = LoadedRun.read(directory, config, env)
    spec = loaded.spec
    limit = spec.config.time_limit if max_steps is None else max_steps
    if limit is None:
        raise ValueError("max_steps is required: the environment has no time limit.")
    ids = spec.seed_ids if seeds is None else tuple(seeds)
    if not ids:
        raise ValueError("seeds must name at least one seed.")
    needed = len(ids) * episodes * 8  # a return and a length
    require_bytes(f"{episodes} episodes of {len(ids)} seeds", needed, host_bytes(), "play fewer")
    index = np.array([seed_index(seed, spec.seed_ids) for seed in ids])
    policies = jax.tree.map(lambda leaf: leaf[index], loaded.states.learner.policy)

    mesh = seed_mesh(num_seeds=len(ids))
    agents, shared = batch_agents(seed_keys(spec.root, ids), spec.config)
    batch: tuple[Any, Agent] = pad_seeds((policies, agents), mesh.size)
    blocks: list[Any] = []
    for number, size in enumerate(block_sizes(episodes), 1):
        evaluate = EvaluateAgent(size, limit, greedy=not sampled, sampled=sampled)
        program = program_over_seeds(evaluate, mesh, num_batched=2)
        # Beyond the last update: an evaluation folds in the number of its update.
        pair = program(*batch, np.int32(spec.config.num_updates + number), shared)
        block = pair.sampled if sampled else pair.greedy
        blocks.append(jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)], block))
    evaluation = Evaluation(
        episode_return=np.concatenate([block.episode_return for block in blocks], axis=1),
        episode_length=np.concatenate([block.episode_length for block in blocks], axis=1),
        num_unfinished=np.sum([block.num_unfinished for block in blocks], axis=0),
    )
    failed = np.asarray(loaded.states.failed_at)[index] >= 0
    return RunEvaluation(spec, ids, loaded.updates, failed, sampled, evaluation)


def block_sizes(episodes: int) -> list[int]:
    """Split episodes into blocks of two sizes at most: each size is compiled by itself."""
    num_blocks = ceil_div(episodes, MAX_BLOCK_EPISODES)
    size, num_larger = divmod(episodes, num_blocks)
    return [size + 1] * num_larger + [size] * (num_blocks - num_larger)
