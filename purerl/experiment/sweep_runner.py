"""A sweep with the host loop: every setting with every seed, ranked, with a figure.

`config/sweeps.py` makes the settings, `experiment/report/sweep_ranking.py` ranks them.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from numpy import ndarray

from purerl.compute.contexts import require_untraced
from purerl.compute.mesh import require_mesh
from purerl.config.config import Config
from purerl.config.sweeps import setting_at, swept_values
from purerl.experiment.batches import SeedBatches
from purerl.experiment.failures import agent_name, all_failed, find_causes, has_agents_left
from purerl.experiment.first_reset import require_sound_start
from purerl.experiment.hosts.devices import mesh_to_dict
from purerl.experiment.hosts.processes import is_multi_process
from purerl.experiment.hosts.sizes import require_room
from purerl.experiment.report.curves import fill_forward
from purerl.experiment.report.run_result import Times
from purerl.experiment.report.statistics import seed_noise
from purerl.experiment.report.sweep_ranking import Sweep, write_sweep
from purerl.experiment.session import Session, open_session
from purerl.experiment.store import files
from purerl.experiment.store.directory import Lock, choose_directory, is_finished, write_header
from purerl.experiment.store.files import explaining_write_errors
from purerl.experiment.store.header import make_header
from purerl.experiment.store.identity import Identity
from purerl.experiment.store.own_files import identity_begun
from purerl.experiment.store.paths import shown
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import ExecutionOptions, RunSpec, choose_chunk_length
from purerl.seeds import seed_ids
from purerl.training import TrainState

SWEEP_ROOT = 1_000_000  # not that of `run`: a winner is confirmed by seeds that have not chosen it


def run_sweep(
    sweep: tuple[Config, Config],
    seeds: int | Sequence[int] = 1,
    directory: str | Path | None = None,
    *,
    root: int = SWEEP_ROOT,
    updates_per_chunk: int | None = None,
    seed_batch: int | None = None,
    memory_limit: int | None = None,
    evaluation_episodes: int = 32,
    target_return: float | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
) -> Sweep:
    """Train every seed with every setting of `purerl.sweep(...)` in compiled chunks, and rank them.

    The directory, by default `runs/ENV-ALGORITHM-sweep`, holds `config.json`, `metrics.npz`
    (`[settings, seeds, records]`, and the returns of all seeds), `sweep.json` (the ranking) and
    `sweep.png`. Arguments and errors are those of `run`; only `root` is another by default, so that
    `run` confirms the best setting with seeds that have not chosen it. A sweep that a signal stops
    is ranked by its last returns in training, and cannot be resumed. So is one of which no agent is
    left.
    """
    require_untraced("purerl.run_sweep")
    configs, axes = sweep
    if is_multi_process():
        raise ValueError("a sweep takes one process; train its settings as runs of their own.")
    mesh = None if mesh is None else require_mesh(mesh, configs.num_envs)
    setting = setting_at(configs, axes)
    require_room(
        setting,
        seeds,
        settings=len(next(iter(swept_values(configs, axes).values()))),
        episodes=0 if configs.time_limit is None else evaluation_episodes,
        memory_limit=memory_limit,
        mesh=mesh,
    )
    spec = RunSpec(
        config=configs,
        root=root,
        seed_ids=seed_ids(seeds),
        updates_per_chunk=choose_chunk_length(configs, updates_per_chunk),
        seed_batch=seed_batch,
        evaluation_episodes=evaluation_episodes,
        target_return=target_return,
        mesh=mesh_to_dict(mesh),
    )
    execution = ExecutionOptions(memory_limit=memory_limit, progress=progress, mesh=mesh)
    spec.check(execution)
    names = ("updates_per_chunk", "evaluation_episodes", "mesh")
    decisions = {name: getattr(spec, name) for name in names}
    identity = Identity.new()
    header = make_header("sweep", configs, root, spec.seed_ids, identity, setting, **decisions)
    directory = Path(choose_directory(header, directory))
    identity = identity_begun(directory)  # of the sweep that it begins anew
    spec = dataclasses.replace(spec, run=identity.run, resumptions=identity.resumptions)
    header |= identity._asdict()
    with Lock(directory), open_session(spec, execution, directory) as session:
        if is_finished(directory, header):
            advice = "name another directory, or remove it to train anew"
            raise ValueError(f"the sweep in {shown(directory)} is finished; {advice}.")
        batches = SeedBatches(session.compile(axes))
        session.stop_on_signal("stopped before training; nothing was trained")
        states = batches.init()
        require_sound_start(spec, batches, states, axes)
        write_header(directory, header)
        result, failed_at = _train(session, axes, batches, states)
        with explaining_write_errors("the result of the sweep could not be written"):
            write_sweep(result)
        if not has_agents_left(failed_at):
            raise all_failed(result, failed_at, list(result.causes.values()), configs)
        if result.updates < configs.num_updates:
            session.stop_on_signal(
                f"stopped at update {result.updates} of {configs.num_updates}; what it has come to "
                f"is ranked in {shown(directory / files.SWEEP)}. A sweep does not go on: it begins "
                f"anew"
            )
    return result


def _train(
    session: Session, axes: Config, batches: SeedBatches, states: list[TrainState]
) -> tuple[Sweep, ndarray]:
    """Train all settings to the end, or to that of a chunk with a signal or without agents left.

    **Returns:** the sweep, and `failed_at` of its agents.
    """
    spec, programs, records = session.spec, batches.programs, Records()
    configs, ids = spec.config, spec.seed_ids
    session.display.start_training(programs)
    for chunk in batches.train(states=states):
        records.add_metrics(chunk.metrics, chunk.record_updates)
        env_steps = chunk.updates * configs.env_steps_per_update
        failed = [agent_name(spec, i, axes) for i in np.flatnonzero(chunk.failed_at >= 0).tolist()]
        session.display.update(chunk, env_steps * programs.num_agents / chunk.seconds, failed)
        has_left = has_agents_left(chunk.failed_at)
        if not has_left or session.received_signal() is not None:
            break
    metrics, evaluation, noise = records.metrics(), None, None
    begin = time.perf_counter()
    if chunk.updates == configs.num_updates and has_left:
        evaluation = batches.evaluate(chunk.states, chunk.updates).greedy
    if evaluation is not None:
        returns = np.asarray(evaluation.episode_return).mean(axis=1)
        noise = seed_noise(np.asarray(evaluation.episode_return))
    else:
        returns = fill_forward(metrics.episode_return)[:, -1]
    values = swept_values(configs, axes)
    shape = (len(next(iter(values.values()))), len(ids))
    failed = chunk.failed_at >= 0
    evaluate_seconds = time.perf_counter() - begin
    causes = find_causes(spec, batches.merge(chunk.states), axes) if np.any(failed) else {}
    result = Sweep(
        configs=configs,
        values=values,
        metrics=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), metrics),
        record_updates=records.updates(),
        returns=np.where(failed, np.nan, returns).reshape(shape),
        noise=None if noise is None else noise.reshape(shape),
        failed=failed.reshape(shape),
        seed_ids=ids,
        root=spec.root,
        directory=session.directory,
        identity=spec.identity,
        target_return=spec.target_return,
        times=Times(programs.seconds, chunk.seconds, evaluate_seconds),
        updates=chunk.updates,
        causes={divmod(agent, len(ids)): cause for agent, cause in causes.items()},
    )
    return result, chunk.failed_at
