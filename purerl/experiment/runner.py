"""The host loop: compiled chunks for all seeds, and between them progress, records and files."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from purerl.compute.mesh import require_mesh, shape_of
from purerl.config.config import Config, require_one_setting
from purerl.experiment.batches import divide
from purerl.experiment.hosts.processes import (
    agreed,
    exchange,
    held_by_first,
    is_first,
    losses_told,
    on_first,
)
from purerl.experiment.hosts.stopping import Signals, Stopped, interruptible
from purerl.experiment.logging.hooks import Chunk, Hooks
from purerl.experiment.logging.loggers import describe_hooks
from purerl.experiment.loop import Loop
from purerl.experiment.programs import Programs, compile_programs
from purerl.experiment.progress import Display
from purerl.experiment.report.run_result import Run, Times, write_result
from purerl.experiment.store.checkpoint_writer import Checkpoints
from purerl.experiment.store.directory import (
    Lock,
    choose_directory,
    header_written,
    make_room,
    require_unsaved,
)
from purerl.experiment.store.files import written
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import Conduct, RunPlan, check_plan, choose_chunk
from purerl.seeds import seed_ids, seed_keys
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

    - `seeds`: a count or the ids themselves, of which `root` makes the keys.
    - `directory`: by default `runs/ENV-ALGORITHM`.
    - `updates_per_chunk`: updates in one compiled call, by default about a thirtieth of all, or
      less where that does not divide them. Between two chunks everything else happens: progress,
      checkpoints, the answer to a signal.
    - `seed_batch`: seeds trained at once, by default all, or as many as fit into the memory of the
      devices or into `memory_limit` bytes on each.
    - `evaluation_episodes`: greedy episodes of each seed after training, and every `evaluate_every`
      updates, there with as many sampled ones (0: none; nor are there any without a time limit).
    - `checkpoint_every`: updates from one checkpoint to the next, by default with the first
      chunk that ends a minute after the last one was begun; the last `keep_checkpoints` are kept.
    - `stop_on_nan`: end the run where a seed stops being finite.
    - `hooks`: functions called with a `Chunk` after each chunk, in threads of their own.
    - `mesh`: the devices, over an axis `seeds`, and where the environments of each agent are spread
      too, one `envs`; by default seeds over all devices.

    With several processes (`jax.distributed`), all call it alike: each trains its share, and the
    first shows progress, calls hooks, and writes; `directory` is on a file system that all share.

    **Raises:** `ValueError` for a size that does not divide, an interval of no whole chunks, seeds
    that repeat or do not fit, a directory that holds another run, or this one already. `RunError`
    where a run cannot go on, and `Stopped` where a signal ended it; what was saved stands.
    """
    require_one_setting(config)
    hooks = tuple(hooks)
    mesh = None if mesh is None else require_mesh(mesh, config.num_envs)
    plan = RunPlan(
        config=config,
        root=root,
        seed_ids=seed_ids(seeds),
        updates_per_chunk=choose_chunk(config, updates_per_chunk),
        seed_batch=seed_batch,
        evaluation_episodes=evaluation_episodes,
        evaluate_every=evaluate_every,
        target_return=target_return,
        mesh=shape_of(mesh),
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
        hooks=describe_hooks(hooks),
    )
    conduct = Conduct(
        memory_limit=memory_limit,
        stop_on_nan=stop_on_nan,
        hooks=hooks,
        progress=progress,
        mesh=mesh,
    )
    check_plan(plan, conduct)
    directory = Path(on_first(choose_directory, plan, directory))
    with losses_told(directory), held_by_first(Lock(directory)):
        on_first(require_unsaved, directory, config)
        return complete(plan, conduct, directory)


def complete(
    plan: RunPlan,
    conduct: Conduct,
    directory: Path,
    start: int = 0,
    restored: tuple[TrainState, Records] | None = None,
) -> Run:
    """Train as planned, from the beginning or from what was restored, and write the result.

    The header is there before anything is compiled: what dies then can be resumed. The result is
    written when the hooks have heard of all.
    """
    with Signals() as signals, _display(plan, conduct) as display:
        with Hooks(conduct.hooks if is_first() else ()) as hooks:  # they are waited for at its end
            with header_written(plan, directory):
                programs = interruptible(compile_run, plan, conduct)
            plan = dataclasses.replace(plan, seed_batch=programs.seed_batch)
            received = next((each for each in exchange(signals.received) if each), None)
            if received is not None:
                then = f"to go on: purerl resume {directory}"
                raise agreed(Stopped(f"stopped before training; {then}", received))
            on_first(make_room, plan, directory, start)
            checkpoints = Checkpoints(directory, plan.header(), start, keep=plan.keep_checkpoints)
            states, records = (None, Records())
            if restored is not None:
                states, records = divide(programs, restored[0]), restored[1]
            loop = Loop(
                plan=plan,
                conduct=conduct,
                programs=programs,
                directory=directory,
                display=display,
                checkpoints=checkpoints,
                records=records,
                hooks=hooks,
                signals=signals,
                start=start,
            )
            trained = loop.train(states)
        times = Times(programs.seconds, loop.seconds, loop.evaluation_seconds)
        result = make_run(plan, directory, trained, records, times, start)
        write_run(result, records)
    return result


def _display(plan: RunPlan, conduct: Conduct) -> Display:
    show = conduct.progress and is_first()
    return Display(plan.config.num_updates, plan.target_return, show=show)


def compile_run(plan: RunPlan, conduct: Conduct) -> Programs:
    """The programs of a plan."""
    return compile_programs(
        seed_keys(plan.root, plan.seed_ids),
        plan.config,
        None,
        chunk_updates=plan.updates_per_chunk,
        episodes=plan.evaluation_episodes,
        sampled=plan.evaluate_every is not None,
        seed_batch=plan.seed_batch,
        memory_limit=conduct.memory_limit,
        mesh=conduct.mesh,
    )


def make_run(
    plan: RunPlan, directory: Path, states: TrainState, records: Records, times: Times, start: int
) -> Run:
    """A run at its end."""
    return Run(
        config=plan.config,
        states=states,
        metrics=records.metrics(),
        evaluations=records.evaluations(),
        seed_ids=plan.seed_ids,
        directory=directory,
        target_return=plan.target_return,
        times=times,
        resumed_at=start,
    )


def write_run(result: Run, records: Records) -> None:
    """Write the result of a run.

    **Raises:** `RunError` where it cannot be written.
    """
    then = f"Make room and write it again: purerl resume {result.directory}"

    def write() -> None:
        with written("the result could not be written", f"; the last checkpoint stands. {then}"):
            write_result(result, records)

    on_first(write)
