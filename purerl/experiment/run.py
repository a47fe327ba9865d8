"""The host loop: compiled chunks for all seeds, and between them progress, records and files."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from numpy import ndarray

from purerl.config import Config, divisors, require_divisor, require_positive_int
from purerl.evaluate import Evaluation, evaluate
from purerl.experiment import files
from purerl.experiment.display import Display
from purerl.experiment.result import Run, Times, write_result
from purerl.experiment.statistics import fill_forward
from purerl.seeds import pad_seeds, seed_ids, seed_keys, seed_mesh, seed_program
from purerl.train import TrainState, advance, init, streams
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
    `summary.json` and `learning_curve.png`.

    **Arguments:** `seeds` is a count or the ids themselves. `directory` defaults to
    `runs/ENV-ALGORITHM`. `updates_per_chunk` must divide the updates, and defaults to about a
    thirtieth of them. After training each policy plays `evaluation_episodes` greedy episodes (0:
    none; nor are there any where the environment has no time limit). A hook is called with a
    `Chunk` after each chunk.

    **Raises:** `ValueError` for a size that does not divide, seeds that repeat, or a directory
    that holds a run of another config.
    """
    ids = seed_ids(seeds)
    chunk_updates = _chunk_updates(config, updates_per_chunk)
    if evaluation_episodes:
        require_positive_int("evaluation_episodes", evaluation_episodes)
    header = files.make_header(config, root, ids)
    directory = files.default_directory(config, header) if directory is None else Path(directory)
    files.open_directory(directory, header)

    with Display(config.num_updates, target_return, show=progress) as display:
        programs = _compile(seed_keys(root, ids), config, chunk_updates, evaluation_episodes)
        display.training()
        states, metrics, run_seconds = _train(programs, config, ids, hooks, display, directory)
    evaluation, evaluation_seconds = _evaluate(programs, states, len(ids))
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
    write_result(result)
    return result


class _Programs(NamedTuple):
    """The compiled programs of a run, all for one padded batch of seeds."""

    keys: Key[Array, " padded"]
    init: Callable[..., Any]
    chunk: Callable[..., Any]
    chunk_updates: int
    evaluate: Callable[..., Any] | None
    seconds: float


def _compile(
    keys: Key[Array, " seeds"], config: Config, chunk_updates: int, episodes: int
) -> _Programs:
    start = time.perf_counter()
    mesh = seed_mesh()
    keys = pad_seeds(keys, mesh.size)

    def chunk(state, config):
        return advance(state, config, chunk_updates)

    def play(seed, config):
        key, policy = seed
        return evaluate(streams(key).evaluate, policy, config, num_episodes=episodes)

    lowered_init = seed_program(init, mesh).lower(keys, config)
    compiled_init = lowered_init.compile()
    state = jax.tree.map(
        lambda out, sharding: jax.ShapeDtypeStruct(out.shape, out.dtype, sharding=sharding),
        lowered_init.out_info,
        compiled_init.output_shardings,
    )
    compiled_chunk = seed_program(chunk, mesh, donate=True).lower(state, config).compile()
    compiled_play = None
    if episodes and config.env_spec.max_steps is not None:
        seeds = (keys, state.learner.policy)
        compiled_play = seed_program(play, mesh).lower(seeds, config).compile()

    def with_config(compiled):
        return lambda batched: compiled(batched, config)

    return _Programs(
        keys=keys,
        init=with_config(compiled_init),
        chunk=with_config(compiled_chunk),
        chunk_updates=chunk_updates,
        evaluate=None if compiled_play is None else with_config(compiled_play),
        seconds=time.perf_counter() - start,
    )


def _train(
    programs: _Programs,
    config: Config,
    ids: tuple[int, ...],
    hooks: Sequence[Callable[[Chunk], Any]],
    display: Display,
    directory: Path,
) -> tuple[TrainState, Metrics, float]:
    start = time.perf_counter()
    state = programs.init(programs.keys)
    records: list[Metrics] = []
    try:
        for updates in range(
            programs.chunk_updates, config.num_updates + 1, programs.chunk_updates
        ):
            state, metrics = programs.chunk(state)
            metrics = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)].copy(), metrics)
            failed_at = np.asarray(state.failed_at)[: len(ids)].copy()
            records.append(metrics)
            env_steps = updates * config.env_steps_per_update
            rate = env_steps * len(ids) / (time.perf_counter() - start)
            latest = np.where(failed_at >= 0, np.nan, _latest_returns(records))
            display.update(updates, rate, latest, int(np.sum(failed_at >= 0)))
            for hook in hooks:
                hook(Chunk(updates, env_steps, ids, metrics, failed_at))
    finally:
        if records:  # also on an interrupt: what was recorded is not lost
            metrics = _concatenate(records)
            files.write_metrics(directory / files.METRICS, metrics, seed_ids=np.asarray(ids))
    return state, metrics, time.perf_counter() - start


def _evaluate(
    programs: _Programs, states: TrainState, num_seeds: int
) -> tuple[Evaluation | None, float]:
    if programs.evaluate is None:
        return None, 0.0
    start = time.perf_counter()
    evaluation = programs.evaluate((programs.keys, states.learner.policy))
    evaluation = jax.tree.map(lambda leaf: np.asarray(leaf)[:num_seeds], evaluation)
    return evaluation, time.perf_counter() - start


def _chunk_updates(config: Config, updates_per_chunk: int | None) -> int:
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


def _latest_returns(records: list[Metrics]) -> Float[ndarray, " seeds"]:
    """Each seed's last return in training, looked for in the last few chunks."""
    recent = np.concatenate([each.episode_return for each in records[-4:]], axis=1)
    return fill_forward(recent)[:, -1]


def _concatenate(records: list[Metrics]) -> Metrics:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *records)
