"""The host loop: compiled chunks for all seeds, and between them progress, records and files."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from purerl.compute.contexts import require_untraced
from purerl.compute.mesh import require_mesh
from purerl.config.config import Config
from purerl.config.swept import require_unbatched
from purerl.experiment.batches import SeedBatches
from purerl.experiment.failures import find_causes, require_agents_left
from purerl.experiment.first_reset import require_sound_start
from purerl.experiment.hosts.devices import mesh_to_dict
from purerl.experiment.hosts.processes import (
    entered_by_main_process,
    explaining_lost_processes,
    is_main_process,
    on_main_process,
)
from purerl.experiment.hosts.sizes import require_room
from purerl.experiment.logging.hooks import Chunk, HookRunner
from purerl.experiment.logging.places import require_own_places
from purerl.experiment.logging.rebuilding import describe_hooks
from purerl.experiment.loop import TrainingLoop
from purerl.experiment.report.run_result import Run, Times, write_result
from purerl.experiment.session import open_session
from purerl.experiment.store.checkpoint_writer import CheckpointWriter
from purerl.experiment.store.checkpoints import Snapshot
from purerl.experiment.store.directory import (
    Lock,
    choose_directory,
    prepare_directory,
    provisional_header,
    require_unused,
)
from purerl.experiment.store.files import explaining_write_errors
from purerl.experiment.store.own_files import identity_begun
from purerl.experiment.store.paths import quoted, resume_command
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import ExecutionOptions, RunSpec, choose_chunk_length
from purerl.seeds import seed_ids
from purerl.training import TrainState


def run(
    config: Config,
    seeds: int | Sequence[int] = 1,
    directory: str | Path | None = None,
    *,
    root: int = 0,
    updates_per_chunk: int | None = None,
    seed_batch: int | None = None,
    memory_limit: int | None = None,
    evaluation_episodes: int = 32,
    evaluate_every: int | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 2,
    target_return: float | None = None,
    stop_on_nan: bool = False,
    hooks: Sequence[Callable[[Chunk], Any]] = (),
    progress: bool = True,
    mesh: Mesh | None = None,
) -> Run:
    """Train many seeds in compiled chunks, show progress, and leave a run directory.

    The directory holds `config.json` (settings and versions), `metrics.npz` (`[seeds, records]`),
    `summary.json`, `learning_curve.png`, and `checkpoints/` and `records/`, from which
    `purerl.resume` goes on.

    **Arguments:**

    - `seeds`: a count or the ids themselves; `root` and the ids make the keys.
    - `directory`: by default `runs/ENV-ALGORITHM`.
    - `updates_per_chunk`: updates in one compiled call, by default a thirtieth of all.
      Progress, checkpoints and the answer to a signal come between two chunks.
    - `seed_batch`: seeds trained at once, by default all, or as many as fit into the memory of the
      devices or into `memory_limit` bytes on each.
    - `evaluation_episodes`: greedy episodes of each seed after training, and every `evaluate_every`
      updates, there with as many sampled ones. There are none with 0, or without a time limit.
    - `checkpoint_every`: updates from one checkpoint to the next, by default with the first chunk
      that ends a minute after the last one began; the last `keep_checkpoints` are kept.
    - `stop_on_nan`: end the run where a seed stops being finite.
    - `hooks`: functions called with a `Chunk` after each chunk, in threads of their own.
    - `mesh`: devices with an axis `seeds`, and `envs` to spread the environments of each agent too;
      by default seeds over all devices.

    With several processes (`jax.distributed`), all call it alike. Each trains its share; the first
    shows progress, calls hooks and writes to `directory`, on a file system that all share.

    **Raises:** `ValueError` for a size that does not divide, an interval of no whole records, seeds
    that repeat, what does not fit into memory, a first observation that cannot be, or a directory
    that holds another run, this one already, or files of somebody else's where a run writes.
    `RunError` where a run cannot go on, `Stopped` where a signal ended it; what was saved is kept.
    `AllAgentsFailed` where no agent is left, with what the run came to.
    """
    require_untraced("purerl.run")
    require_unbatched(config)
    hooks = tuple(hooks)
    mesh = None if mesh is None else require_mesh(mesh, config.num_envs)
    room: dict[str, Any] = {"memory_limit": memory_limit, "mesh": mesh}
    room["episodes"] = 0 if config.time_limit is None else evaluation_episodes
    on_main_process(lambda: require_room(config, seeds, **room))
    spec = RunSpec(
        config=config,
        root=root,
        seed_ids=seed_ids(seeds),
        updates_per_chunk=choose_chunk_length(config, updates_per_chunk),
        seed_batch=seed_batch,
        evaluation_episodes=evaluation_episodes,
        evaluate_every=evaluate_every,
        target_return=target_return,
        mesh=mesh_to_dict(mesh),
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
        hooks=describe_hooks(hooks),
    )
    execution = ExecutionOptions(memory_limit, stop_on_nan, hooks, progress, mesh)
    spec.check(execution)
    directory = Path(on_main_process(lambda: choose_directory(spec.header(), directory)))
    with explaining_lost_processes(quoted(directory)), entered_by_main_process(Lock(directory)):
        on_main_process(require_unused, directory, config)
        run, resumptions, _ = on_main_process(identity_begun, directory)
        spec = dataclasses.replace(spec, run=run, resumptions=resumptions)
        on_main_process(require_own_places, hooks, directory, run)
        result = train_to_end(spec, execution, directory)
    return require_agents_left(result)


def train_to_end(
    spec: RunSpec, execution: ExecutionOptions, directory: Path, snapshot: Snapshot | None = None
) -> Run:
    """Train from the beginning or from a snapshot, and write the result when the hooks are done.

    The header is written before anything is compiled: a run that dies there can be resumed.
    """
    start, states, records = (0, None, Records()) if snapshot is None else snapshot
    with open_session(spec, execution, directory) as session:
        # Leaving it waits for the hooks.
        with HookRunner(execution.hooks if is_main_process() else ()) as hooks:
            with provisional_header(spec, directory):
                programs = session.compile()
                batches = SeedBatches(programs)
                if states is None:
                    begin = batches.init()
                    require_sound_start(spec, batches, begin)
                else:
                    begin = batches.split(states)
            spec = dataclasses.replace(spec, seed_batch=programs.seed_batch)
            session = dataclasses.replace(session, spec=spec)
            advice = f"to go on: {resume_command(directory)}"
            session.stop_on_signal(f"stopped before training; {advice}")
            on_main_process(prepare_directory, spec, directory, start)
            writer = CheckpointWriter(directory, spec.header(), start, keep=spec.keep_checkpoints)
            loop = TrainingLoop(session, batches, writer, hooks, start, records)
            states = loop.train(begin)
            del begin  # and with it the states on the devices
        times = Times(programs.seconds, loop.seconds, loop.evaluation_seconds)
        causes = find_causes(spec, states)
        result = make_run(spec, directory, states, records, times, start, causes)
        write_run(result, records)
    return result


def make_run(
    spec: RunSpec,
    directory: Path,
    states: TrainState,
    records: Records,
    times: Times,
    start: int,
    causes: Mapping[int, str],
) -> Run:
    """Make the run of its parts; `causes` are by the index of a seed."""
    return Run(
        config=spec.config,
        states=states,
        metrics=records.metrics(),
        record_updates=records.updates(),
        evaluations=records.evaluations(),
        seed_ids=spec.seed_ids,
        directory=directory,
        target_return=spec.target_return,
        times=times,
        resumed_at=start,
        identity=spec.identity,
        provenance=spec.provenance,
        causes={spec.seed_ids[index]: cause for index, cause in causes.items()},
    )


def write_run(result: Run, records: Records) -> None:
    """Write the result of a run.

    **Raises:** `RunError` where it cannot be written.
    """
    again = f"Make room and write it again: {resume_command(result.directory)}"
    advice = f"; the last checkpoint stands. {again}"
    explain = explaining_write_errors("the result could not be written", advice)
    on_main_process(explain(write_result), result, records)
