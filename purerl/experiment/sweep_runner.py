"""A sweep with the host loop: every setting with every seed, ranked, with a figure."""

import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from purerl.compute.mesh import require_mesh, shape_of
from purerl.config.config import Config
from purerl.config.sweeps import one_setting, swept_values
from purerl.experiment.batches import play_episodes, train_chunks
from purerl.experiment.hosts.processes import several
from purerl.experiment.hosts.stopping import Signals, Stopped, interruptible
from purerl.experiment.programs import Programs, compile_programs
from purerl.experiment.progress import Display
from purerl.experiment.report.run_result import Times
from purerl.experiment.report.statistics import fill_forward
from purerl.experiment.report.sweep_ranking import Sweep, write_sweep
from purerl.experiment.store import files
from purerl.experiment.store.directory import Lock, default_directory, is_finished, require_same_run
from purerl.experiment.store.files import write_signed, written
from purerl.experiment.store.header import make_header
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import Conduct, RunPlan, check_plan, choose_chunk
from purerl.seeds import seed_ids, seed_keys


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

    The directory holds `config.json`, `metrics.npz` (`[settings, seeds, records]`, and the returns
    of all seeds), `sweep.json` (the ranking) and `sweep.png`. Arguments and errors are those of
    `run`; the directory is `runs/ENV-ALGORITHM-sweep` by default, numbered where a finished sweep
    is there. One that a signal stops leaves what it has come to, ranked by the last returns in
    training; it does not go on from there.
    """
    configs, axes = sweep
    if several():
        raise ValueError("a sweep takes one process; train its settings as runs of their own.")
    mesh = None if mesh is None else require_mesh(mesh, configs.num_envs)
    plan = RunPlan(
        config=configs,
        root=root,
        seed_ids=seed_ids(seeds),
        updates_per_chunk=choose_chunk(configs, updates_per_chunk),
        seed_batch=seed_batch,
        evaluation_episodes=evaluation_episodes,
        evaluate_every=None,
        target_return=target_return,
        mesh=shape_of(mesh),
    )
    conduct = Conduct(memory_limit=memory_limit, mesh=mesh)
    check_plan(plan, conduct)
    header = make_header(
        "sweep",
        configs,
        root,
        plan.seed_ids,
        one_setting(configs, axes),
        updates_per_chunk=plan.updates_per_chunk,
        evaluation_episodes=evaluation_episodes,
        mesh=shape_of(mesh),
    )
    if directory is None:
        directory = default_directory(configs, header, "-sweep")
    directory = Path(directory)
    require_same_run(directory, header)
    with (
        Lock(directory),
        Signals() as signals,
        Display(configs.num_updates, target_return, show=progress) as display,
    ):
        if is_finished(directory, header):
            raise ValueError(
                f"the sweep in {directory} is finished; name another directory, or remove it to "
                f"train anew."
            )
        programs = interruptible(_compile, plan, axes, conduct)
        if signals.received is not None:
            raise Stopped("stopped before training; nothing was trained", signals.received)
        with written(f"{directory} cannot be written"):
            write_signed(directory / files.HEADER, header)
        display.training(programs)
        result = _train(plan, axes, programs, directory, display, signals)
        with written("the result of the sweep could not be written"):
            write_sweep(result)
        if result.updates < configs.num_updates and signals.received is not None:
            raise Stopped(
                f"stopped at update {result.updates} of {configs.num_updates}; what it has come to "
                f"is ranked in {directory / files.SWEEP}. A sweep does not go on: it begins anew",
                signals.received,
            )
    return result


def _compile(plan: RunPlan, axes: Config, conduct: Conduct) -> Programs:
    return compile_programs(
        seed_keys(plan.root, plan.seed_ids),
        plan.config,
        axes,
        chunk_updates=plan.updates_per_chunk,
        episodes=plan.evaluation_episodes,
        seed_batch=plan.seed_batch,
        memory_limit=conduct.memory_limit,
        mesh=conduct.mesh,
    )


def _train(
    plan: RunPlan,
    axes: Config,
    programs: Programs,
    directory: Path,
    display: Display,
    signals: Signals,
) -> Sweep:
    """Train all settings to the end, or to that of the chunk in which a signal comes."""
    configs, ids, records = plan.config, plan.seed_ids, Records()
    for now in train_chunks(programs):
        records.add_metrics(now.metrics, plan.record_updates(now.updates))
        env_steps = now.updates * configs.env_steps_per_update
        failed = [
            f"setting {i // len(ids)} seed {ids[i % len(ids)]}"
            for i in np.flatnonzero(now.failed_at >= 0)
        ]
        display.update(now, env_steps * programs.num_agents / now.seconds, failed)
        if signals.received is not None:
            break
    metrics, evaluation = records.metrics(), None
    begin = time.perf_counter()
    if now.updates == configs.num_updates:
        evaluation, _ = play_episodes(programs, now.states, now.updates)
    if evaluation is not None:
        returns = np.asarray(evaluation.episode_return).mean(axis=1)
    else:
        returns = fill_forward(metrics.episode_return)[:, -1]
    values = swept_values(configs, axes)
    shape = (len(next(iter(values.values()))), len(ids))
    failed = now.failed_at >= 0
    return Sweep(
        configs=configs,
        values=values,
        metrics=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), metrics),
        returns=np.where(failed, np.nan, returns).reshape(shape),
        failed=failed.reshape(shape),
        seed_ids=ids,
        directory=directory,
        target_return=plan.target_return,
        times=Times(programs.seconds, now.seconds, time.perf_counter() - begin),
        updates=now.updates,
    )
