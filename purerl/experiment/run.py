"""The host loop: compiled chunks for all seeds, and between them progress, records and files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy import ndarray

from purerl.checks import divisors, require_divisor, require_positive_int
from purerl.config import Config, require_one_setting
from purerl.experiment import files
from purerl.experiment.display import Display
from purerl.experiment.programs import (
    Programs,
    compile_programs,
    concatenate,
    play_episodes,
    train_chunks,
)
from purerl.experiment.result import Run, Times, write_result
from purerl.seeds import seed_ids, seed_keys
from purerl.train import TrainState
from purerl.types import Metrics


class Chunk(NamedTuple):
    """What a hook is given after each chunk: copies on the host, free to keep."""

    updates: int
    env_steps: int
    seed_ids: tuple[int, ...]
    metrics: Metrics
    """NumPy, `[seeds, records of this chunk]`."""
    failed_at: ndarray


def run(
    config: Config,
    seeds: int | Sequence[int] = 1,
    directory: str | Path | None = None,
    *,
    root: int = 0,
    updates_per_chunk: int | None = None,
    evaluation_episodes: int = 32,
    target_return: float | None = None,
    hooks: Sequence[Callable[[Chunk], Any]] = (),
    progress: bool = True,
) -> Run:
    """Train many seeds in compiled chunks, show progress, and leave a run directory.

    The directory holds `config.json` (settings and versions), `metrics.npz` (`[seeds, records]`),
    `summary.json` and `learning_curve.png`. Of a run that is interrupted it holds the metrics so
    far, as `metrics.partial.npz`.

    **Arguments:** `seeds` is a count or the ids themselves. `directory` defaults to
    `runs/ENV-ALGORITHM`. `updates_per_chunk` must divide the updates, and defaults to about a
    thirtieth of them. After training each policy plays `evaluation_episodes` greedy episodes (0:
    none; nor are there any where the environment has no time limit). A hook is called with a
    `Chunk` after each chunk.

    **Raises:** `ValueError` for a size that does not divide, seeds that repeat, or a directory
    that holds another run: of another config, root or seeds.
    """
    ids = seed_ids(seeds)
    require_one_setting(config)
    chunk_updates = choose_chunk(config, updates_per_chunk)
    if evaluation_episodes:
        require_positive_int("evaluation_episodes", evaluation_episodes)
    header = files.make_header(
        config,
        root,
        ids,
        updates_per_chunk=chunk_updates,
        evaluation_episodes=evaluation_episodes,
    )
    directory = files.default_directory(config, header) if directory is None else Path(directory)
    files.open_directory(directory, header)

    with Display(config.num_updates, target_return, show=progress) as display:
        programs = compile_programs(
            seed_keys(root, ids),
            config,
            None,
            chunk_updates=chunk_updates,
            episodes=evaluation_episodes,
        )
        states, metrics, run_seconds = _train(programs, ids, hooks, display, directory)
    evaluation, evaluation_seconds = play_episodes(programs, states)
    result = Run(
        config=config,
        states=jax.tree.map(lambda leaf: leaf[: len(ids)], states),
        metrics=metrics,
        seed_ids=ids,
        directory=directory,
        evaluation=evaluation,
        target_return=target_return,
        times=Times(programs.seconds, run_seconds, evaluation_seconds),
    )
    files.write_json(directory / files.HEADER, header)
    write_result(result)
    return result


def _train(
    programs: Programs,
    ids: tuple[int, ...],
    hooks: Sequence[Callable[[Chunk], Any]],
    display: Display,
    directory: Path,
) -> tuple[TrainState, Metrics, float]:
    records: list[Metrics] = []
    display.training()
    try:
        for now in train_chunks(programs):
            records.append(now.metrics)
            env_steps = now.updates * programs.config.env_steps_per_update
            display.update(now, env_steps * len(ids) / now.seconds)
            for hook in hooks:
                hook(Chunk(now.updates, env_steps, ids, now.metrics, now.failed_at))
    except BaseException:
        if records:  # what was recorded is not lost, nor what an earlier run has left
            partial = directory / files.PARTIAL_METRICS
            files.write_metrics(partial, concatenate(records), seed_ids=np.asarray(ids))
        raise
    return now.states, concatenate(records), now.seconds


def choose_chunk(config: Config, updates_per_chunk: int | None) -> int:
    """The updates of one chunk, checked; by default about a thirtieth of all."""
    if updates_per_chunk is None:
        # The divisor that makes the number of chunks nearest to 30, in ratio.
        records = min(
            divisors(config.num_records),
            key=lambda d: abs(np.log(config.num_records / d / 30)),
        )
        return records * config.log_every
    require_positive_int("updates_per_chunk", updates_per_chunk)
    require_divisor("updates_per_chunk", updates_per_chunk, "num_updates", config.num_updates)
    require_divisor("log_every", config.log_every, "updates_per_chunk", updates_per_chunk)
    return updates_per_chunk
