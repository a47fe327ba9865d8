"""Going on with a run from its newest checkpoint, exactly as if it had not stopped."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from purerl.compute.contexts import require_untraced
from purerl.compute.mesh import require_mesh
from purerl.config.config import Config
from purerl.experiment.failures import find_causes, has_agents_left, require_agents_left
from purerl.experiment.hosts.devices import mesh_from_dict, mesh_to_dict
from purerl.experiment.hosts.processes import (
    entered_by_main_process,
    explaining_lost_processes,
    is_main_process,
    on_main_process,
)
from purerl.experiment.logging.hooks import Chunk, HookRunner, replay_chunks
from purerl.experiment.logging.places import require_own_places
from purerl.experiment.logging.rebuilding import (
    describe_hooks,
    rebuild_loggers,
    take_over_projects,
)
from purerl.experiment.report.run_result import Run, Times, draw_figures
from purerl.experiment.resume_checks import (
    parts_of_run,
    require_resumable,
    require_states,
    require_unchanged,
)
from purerl.experiment.runner import make_run, train_to_end, write_run
from purerl.experiment.store.checkpoints import (
    latest_resumable,
    restore_snapshot,
)
from purerl.experiment.store.directory import Lock, read_header, write_header
from purerl.experiment.store.finished_run import (
    complete_at,
    had_no_agents_left,
    has_metrics,
    read_summary,
    write_records_again,
)
from purerl.experiment.store.header import (
    warn_if_nondeterministic,
)
from purerl.experiment.store.own_files import require_own_names
from purerl.experiment.store.paths import (
    as_directory,
    quoted,
    shown,
)
from purerl.experiment.store.spec import ExecutionOptions, RunSpec


def resume(
    directory: str | Path,
    config: Config | None = None,
    *,
    env: Any = None,
    total_steps: int | None = None,
    force: bool = False,
    seed_batch: int | None = None,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int | None = None,
    stop_on_nan: bool = False,
    hooks: Sequence[Callable[[Chunk], Any]] | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
) -> Run:
    """Go on with a run from its newest sound checkpoint, or from the start where it has none.

    On the same machine with the same versions, states and metrics are bitwise those of a run that
    was never interrupted. A finished run is loaded, on any machine, and where nothing can be
    written too; a missing result is written.
    One that ended since all its agents had failed does not go on, whatever the budget.

    **Arguments:**

    - `config`: needed where the environment, a network, a loss or an optimiser is the user's own;
      `env` is enough where only the environment is.
    - `total_steps`: another budget. Schedules then run over the new one.
    - `force`: go on although the config, a version or the machine differs, which may change the
      result. Where no checkpoint is sound, remove them and start from zero; where a finished run
      lacks its last checkpoint, train anew what is missing.
    - `seed_batch`, `mesh`: other seeds at once or other devices, which may change the result.
    - `checkpoint_every`, `keep_checkpoints`: by default as before.
    - `hooks`: by default the loggers that the run had, unless it is finished; a warning names its
      other hooks. Hooks first get all records so far.
    - The others are those of `purerl.run`.

    **Raises:** `ValueError` where there is no run, it is in use, its config is needed, something
    differs or a finished run lacks its states and `force` is not given, or a name that a run writes
    is taken by a file of somebody else's. `AllAgentsFailed` where no agent is or was left.
    """
    require_untraced("purerl.resume")
    directory = as_directory(directory)
    header = on_main_process(_whole_header, directory)
    budget = header["config"]["num_updates"]
    asks = total_steps is not None or bool(hooks)
    asks |= config is not None and config.num_updates != budget
    complete = None if asks else on_main_process(complete_at, directory)
    # Of a run of which nothing is left to write, nobody holds the directory.
    lock: Any = Lock(directory) if complete is None else contextlib.nullcontext()
    with explaining_lost_processes(quoted(directory)), entered_by_main_process(lock):
        if complete is None:
            header = on_main_process(_whole_header, directory)
            on_main_process(write_records_again, directory)
            start = on_main_process(latest_resumable, directory, force) or 0
        else:
            start = complete
        spec = RunSpec.from_header(header, config, env)
        if not force:
            asked = total_steps is not None
            on_main_process(require_states, directory, spec.config, start, asked)
        is_over = on_main_process(had_no_agents_left, directory, start)
        if total_steps is not None and not is_over:
            spec = spec.with_budget(total_steps, start)
        trained = is_over or start == spec.config.num_updates
        if mesh is None and not trained:  # a finished run needs none of its devices
            mesh = mesh_from_dict(spec.mesh)
        mesh = None if mesh is None else require_mesh(mesh, spec.config.num_envs)
        if hooks is not None:
            hooks = take_over_projects(hooks, header["hooks"])
        changes: dict[str, Any] = {
            "seed_batch": seed_batch,
            "checkpoint_every": checkpoint_every,
            "keep_checkpoints": keep_checkpoints,
            "hooks": None if hooks is None else describe_hooks(hooks),
            "mesh": mesh_to_dict(mesh),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        spec = dataclasses.replace(spec, **given)
        summary = on_main_process(read_summary, directory, spec.config) if trained else None
        digest = None if summary is None else summary["metrics"]
        is_whole = summary is not None and on_main_process(has_metrics, directory, digest)
        if complete is not None and not is_whole:
            raise ValueError(f"{shown(directory)!r} has changed while it was read; try again.")
        if hooks is None:
            # With a summary, the hooks of before have received everything.
            hooks = [] if summary is not None else _rebuilt_loggers(spec, directory)
        execution = ExecutionOptions(memory_limit, stop_on_nan, hooks, progress, mesh)
        spec.check(execution)
        if not trained:
            on_main_process(spec.require_room, execution)
        require_resumable(header, spec, start)
        on_main_process(require_unchanged, header, spec, force, total_steps is not None, trained)
        if not is_whole:  # something will be written
            on_main_process(require_own_names, directory, describe_hooks(hooks), start)
        on_main_process(require_own_places, hooks, directory, spec.run)
        if not trained:
            parts = on_main_process(parts_of_run, header, spec, start)
            spec = dataclasses.replace(
                spec, provenance=parts, resumptions=header["resumptions"] + 1
            )
        if start and not trained:
            warn_if_nondeterministic(header)
        result = _continue(header, spec, execution, directory, start, summary, is_whole)
    return require_agents_left(result)


def _rebuilt_loggers(spec: RunSpec, directory: Path) -> list[Any]:
    """The loggers that a run had, in the main process alone."""
    loggers: list[Any] = []
    on_main_process(lambda: loggers.extend(rebuild_loggers(spec.hooks, directory)))
    return loggers


def _continue(
    header: dict[str, Any],
    spec: RunSpec,
    execution: ExecutionOptions,
    directory: Path,
    start: int,
    summary: dict[str, Any] | None,
    is_whole: bool,
) -> Run:
    """Train what is left, and play the last episodes; where both are done, load the run.

    Hooks get all records of such a run: they may have missed its end. Its result is written unless
    it `is_whole`.
    """
    if not start:
        return train_to_end(spec, execution, directory)
    snapshot = restore_snapshot(directory, start, spec.state_shapes())
    _, states, records = snapshot
    is_evaluated = on_main_process(records.is_evaluated, start)
    is_over = not has_agents_left(states.failed_at)
    is_trained = start == spec.config.num_updates
    if not is_over and (not is_trained or (spec.evaluates_at(start) and not is_evaluated)):
        if execution.mesh is None:  # trained, but not evaluated
            execution = dataclasses.replace(execution, mesh=mesh_from_dict(spec.mesh))
        return train_to_end(spec, execution, directory, snapshot)
    with HookRunner(execution.hooks if is_main_process() else ()) as hooks:
        if hooks:
            failed_at = np.asarray(states.failed_at)
            for chunk in replay_chunks(spec, directory, start, records, failed_at):
                hooks.send(chunk)
    if summary is not None:
        times, found = Times(**summary["times"]), summary["resumed_at"]
        known = enumerate(seed.get("cause") for seed in summary["seeds"])
        causes = {index: cause for index, cause in known if cause is not None}
        result = make_run(spec, directory, states, records, times, found, causes)
        if is_whole:
            on_main_process(lambda: draw_figures(result, missing=True))
        else:
            write_run(result, records)
        return result
    causes, times = find_causes(spec, states), Times(0.0, 0.0, 0.0)
    result = make_run(spec, directory, states, records, times, start, causes)
    if is_trained and header["config"]["num_updates"] != start:  # a budget cut to what is trained
        on_main_process(lambda: write_header(directory, spec.header()))
    write_run(result, records)
    return result


def _whole_header(directory: Path) -> dict[str, Any]:
    """The header of a run in whose directory nothing that it writes is another run's."""
    return read_header(directory, everything=True)
