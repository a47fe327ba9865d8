"""A sweep with the host loop: every setting with every seed, ranked, with a figure."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from purerl.checks import require_positive_int
from purerl.config import Config
from purerl.experiment import files
from purerl.experiment.chunks import play_episodes, train_chunks
from purerl.experiment.conduct import choose_chunk
from purerl.experiment.display import Display
from purerl.experiment.header import default_directory, env_name, make_header, require_same_run
from purerl.experiment.layout import shape_of
from purerl.experiment.lock import Lock
from purerl.experiment.plot import save_figure, sweep_curves
from purerl.experiment.processes import several
from purerl.experiment.programs import compile_programs
from purerl.experiment.records import Records
from purerl.experiment.result import Times
from purerl.experiment.signed import write_signed
from purerl.experiment.statistics import NOTHING, Interval, fill_forward, iqm, iqm_interval
from purerl.seeds import seed_ids, seed_keys
from purerl.sharding import require_mesh
from purerl.sweep import one_setting, swept_values
from purerl.types import Metrics


class Ranked(NamedTuple):
    """A setting of a sweep: its index, its values, and what they came to over seeds."""

    setting: int
    values: dict[str, float]
    episode_return: Interval
    solved: float | None
    num_failed: int


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A finished sweep. `metrics` and `returns` are NumPy, `[settings, seeds, ...]`."""

    configs: Config
    values: dict[str, Float[ndarray, " settings"]]
    metrics: Metrics
    returns: Float[ndarray, "settings seeds"]
    failed: ndarray
    seed_ids: tuple[int, ...]
    directory: Path
    target_return: float | None
    times: Times

    @property
    def order(self) -> list[int]:
        """The settings, best first, by the IQM over seeds of their return.

        For the order alone, a seed that has no return counts as worse than all that have one.
        """
        known = self.returns[~np.isnan(self.returns)]
        worse = known.min() - np.ptp(known) - 1 if known.size else 0.0
        scores = iqm(np.where(np.isnan(self.returns), worse, self.returns).T)
        return np.argsort(-scores, kind="stable").tolist()

    def ranking(self) -> list[Ranked]:
        """The settings, best first, with the interval over the seeds that have a return."""
        return [self._ranked(setting) for setting in self.order]

    def _ranked(self, setting: int) -> Ranked:
        returns, target = self.returns[setting], self.target_return
        known = returns[~np.isnan(returns)]
        return Ranked(
            setting=setting,
            values={name: float(column[setting]) for name, column in self.values.items()},
            episode_return=iqm_interval(known) if known.size else NOTHING,
            solved=None if target is None else float(np.mean(returns >= target)),
            num_failed=int(np.sum(self.failed[setting])),
        )

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw one learning curve a setting, and save it, as `sweep.png` in the directory."""
        config, order = self.configs, self.order
        per_record = config.log_every * config.env_steps_per_update
        num_settings, num_seeds = self.returns.shape
        figure = sweep_curves(
            np.arange(1, config.num_records + 1) * float(per_record),
            self.metrics.episode_return[order],
            [self._label(setting) for setting in order],
            title=f"{env_name(config)}, {config.algorithm.name}: {num_settings} settings, "
            f"{num_seeds} seeds each",
            target_return=self.target_return,
        )
        save_figure(figure, self.directory / "sweep.png" if path is None else Path(path))
        return figure

    def _label(self, setting: int) -> str:
        values = ((name, column[setting]) for name, column in self.values.items())
        return ", ".join(f"{name} {value:.3g}" for name, value in values)


def run_sweep(
    sweep: tuple[Config, Config],
    seeds: int | Sequence[int] = 1,
    directory: str | Path | None = None,
    *,
    root: int = 0,
    updates_per_chunk: int | None = None,
    seed_batch: int | None = None,
    memory_limit: int | None = None,
    evaluation_episodes: int = 32,
    target_return: float | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
) -> Sweep:
    """Train every seed with every setting of `purerl.sweep(...)` in compiled chunks, and rank them.

    The directory holds `config.json`, `metrics.npz` (`[settings, seeds, records]`), `sweep.json`
    (the ranking) and `sweep.png`. Arguments and errors are those of `run`; the directory is
    `runs/ENV-ALGORITHM-sweep` by default.
    """
    configs, axes = sweep
    ids = seed_ids(seeds)
    if several():
        raise ValueError("a sweep takes one process; train its settings as runs of their own.")
    mesh = None if mesh is None else require_mesh(mesh, configs.num_envs)
    chunk_updates = choose_chunk(configs, updates_per_chunk)
    if evaluation_episodes:
        require_positive_int("evaluation_episodes", evaluation_episodes)
    values = swept_values(configs, axes)
    num_settings = len(next(iter(values.values())))
    header = make_header(
        "sweep",
        configs,
        root,
        ids,
        one_setting(configs, axes),
        updates_per_chunk=chunk_updates,
        evaluation_episodes=evaluation_episodes,
        mesh=shape_of(mesh),
    )
    if directory is None:
        directory = default_directory(configs, header, "-sweep")
    directory = Path(directory)
    require_same_run(directory, header)
    with Lock(directory), Display(configs.num_updates, target_return, show=progress) as display:
        programs = compile_programs(
            seed_keys(root, ids),
            configs,
            axes,
            chunk_updates=chunk_updates,
            episodes=evaluation_episodes,
            seed_batch=seed_batch,
            memory_limit=memory_limit,
            mesh=mesh,
        )
        write_signed(directory / files.HEADER, header)
        display.training()
        records = Records()
        for now in train_chunks(programs):
            records.add_metrics(now.metrics, np.array([now.updates]))
            env_steps = now.updates * configs.env_steps_per_update
            failed = [
                f"setting {i // len(ids)} seed {ids[i % len(ids)]}"
                for i in np.flatnonzero(now.failed_at >= 0)
            ]
            display.update(now, env_steps * programs.num_agents / now.seconds, failed)
        begin = time.perf_counter()
        evaluation, _ = play_episodes(programs, now.states, now.updates)
        evaluation_seconds = time.perf_counter() - begin
    metrics = records.metrics()
    if evaluation is not None:
        returns = np.asarray(evaluation.episode_return).mean(axis=1)
    else:
        returns = fill_forward(metrics.episode_return)[:, -1]
    failed = now.failed_at >= 0
    shape = (num_settings, len(ids))
    result = Sweep(
        configs=configs,
        values=values,
        metrics=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), metrics),
        returns=np.where(failed, np.nan, returns).reshape(shape),
        failed=failed.reshape(shape),
        seed_ids=ids,
        directory=directory,
        target_return=target_return,
        times=Times(programs.seconds, now.seconds, evaluation_seconds),
    )
    write_sweep(result)
    return result


def write_sweep(result: Sweep) -> None:
    """Write a sweep's metrics, ranking and figure into its directory."""
    directory = result.directory
    swept = {name.replace(".", "_"): column for name, column in result.values.items()}
    seed_ids = np.asarray(result.seed_ids)
    names = [field.name for field in dataclasses.fields(result.metrics)]
    metrics = {name: getattr(result.metrics, name) for name in names}
    files.write_arrays(directory / files.METRICS, metrics | swept | {"seed_ids": seed_ids})
    ranking = [
        each._asdict() | {"episode_return": each.episode_return._asdict()}
        for each in result.ranking()
    ]
    summary = {
        "ranking": ranking,
        "target_return": result.target_return,
        "num_seeds": len(result.seed_ids),
        "env_steps": result.configs.env_steps,
        "times": result.times._asdict(),
    }
    files.write_json(directory / "sweep.json", summary)
    result.plot()
