"""Going on with a run from its newest checkpoint, exactly as if it had not stopped."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from purerl.compute.mesh import mesh_from, require_mesh, shape_of
from purerl.config.config import Config
from purerl.experiment.hosts.processes import held_by_first, is_first, losses_told, on_first
from purerl.experiment.logging.hooks import Chunk, Hooks, past_chunks
from purerl.experiment.logging.loggers import describe_hooks, make_again
from purerl.experiment.report.run_result import Run, Times
from purerl.experiment.runner import complete, make_run, write_run
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import (
    has_checkpoints,
    newest_whole,
    restore,
    restore_records,
)
from purerl.experiment.store.directory import Lock, read_header, write_header
from purerl.experiment.store.fingerprint import describe, digest, shapes
from purerl.experiment.store.header import (
    as_json,
    differences,
    list_differences,
    machine_of,
    surroundings,
    warn_where_inexact,
)
from purerl.experiment.store.records import Records, read_summary
from purerl.experiment.store.spec import Conduct, RunPlan, check_plan, config_with_budget, plan_of
from purerl.training import TrainState


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

    On the same machine with the same versions the result is bitwise that of a run which was never
    interrupted: states and metrics. A finished run is loaded, on any machine; where its result is
    missing, that is written.

    **Arguments:**

    - `config`: needed where the environment, a network, a loss or an optimiser is the user's own;
      `env` is enough where it is the environment alone.
    - `total_steps`: another budget. Annealed hyperparameters then fall over the new one.
    - `force`: go on although the config, a version or the machine differs, which may change the
      result; start from zero, and lose them, where no checkpoint is sound.
    - `seed_batch`: seeds trained at once, where fewer fit than before; it may change the result.
    - `mesh`: other devices than before, which may change the result too.
    - `checkpoint_every`, `keep_checkpoints`: by default as before.
    - `hooks`: by default the loggers that the run had, unless it is finished; of others that it had
      a warning tells. They are first called with all records so far.
    - The others are those of `purerl.run`.

    **Raises:** `ValueError` where there is no run, it is in use, its config is needed, or something
    differs and `force` is not given.
    """
    directory = Path(directory)
    on_first(_require_run, directory)
    with losses_told(directory), held_by_first(Lock(directory)):
        start = on_first(newest_whole, directory, force) or 0
        header = on_first(read_header, directory, start)
        plan = plan_of(header, config, env)
        if total_steps is not None:
            plan = dataclasses.replace(plan, config=config_with_budget(plan, total_steps, start))
        trained = start == plan.config.num_updates
        if mesh is None and not trained:  # what is finished needs none of its devices
            mesh = mesh_from(plan.mesh)
        if mesh is not None:
            mesh = require_mesh(mesh, plan.config.num_envs)
            plan = dataclasses.replace(plan, mesh=shape_of(mesh))
        told: dict[str, Any] = {
            "seed_batch": seed_batch,
            "checkpoint_every": checkpoint_every,
            "keep_checkpoints": keep_checkpoints,
            "hooks": None if hooks is None else describe_hooks(hooks := tuple(hooks)),
        }
        told = {name: each for name, each in told.items() if each is not None}
        plan = dataclasses.replace(plan, **told)
        summary = on_first(read_summary, directory, plan.config) if trained else None
        made = []
        if hooks is None and summary is None:  # with a summary they have heard of all
            on_first(lambda: made.extend(make_again(plan.hooks)))
        conduct = Conduct(
            memory_limit=memory_limit,
            stop_on_nan=stop_on_nan,
            hooks=made if hooks is None else hooks,
            progress=progress,
            mesh=mesh,
        )
        check_plan(plan, conduct)
        _require_going_on(header, plan, start)
        with_budget = total_steps is not None
        on_first(_require_the_same, header, plan, force, with_budget, trained)
        if not start:
            return complete(plan, conduct, directory)
        if not trained:
            warn_where_inexact(header)
        records = restore_records(directory, start)
        states = restore(directory, start, plan.state_shapes())
        is_evaluated = on_first(records.is_evaluated, start)
        if trained and (is_evaluated or not plan.is_evaluated(start)):
            _tell_all(plan, conduct, directory, states, records)
            return _load(header, plan, directory, states, records, summary)
        if trained and mesh is None:  # but not evaluated
            conduct = dataclasses.replace(conduct, mesh=mesh_from(plan.mesh))
        return complete(plan, conduct, directory, start, (states, records))


def _require_run(directory: Path) -> None:
    if not (directory / files.HEADER).exists() and not has_checkpoints(directory):
        raise ValueError(
            f"directory = {str(directory)!r} holds no run; start one with purerl train."
        )


def _tell_all(
    plan: RunPlan, conduct: Conduct, directory: Path, states: TrainState, records: Records
) -> None:
    """Tell the hooks of a run that is finished: they may not have heard of its end."""
    with Hooks(conduct.hooks if is_first() else ()) as hooks:
        if hooks:
            failed = np.asarray(states.failed_at)
            for chunk in past_chunks(plan, directory, plan.config.num_updates, records, failed):
                hooks.send(chunk)


def _load(
    header: dict[str, Any],
    plan: RunPlan,
    directory: Path,
    states: TrainState,
    records: Records,
    summary: dict[str, Any] | None,
) -> Run:
    """A run that is trained and evaluated; its result is written where there is no summary."""
    start = plan.config.num_updates
    if summary is not None:
        times = Times(**summary["times"])
        return make_run(plan, directory, states, records, times, summary["resumed_at"])
    result = make_run(plan, directory, states, records, Times(0.0, 0.0, 0.0), start)
    if header["config"]["num_updates"] != start:  # a budget that is cut to where the run stands
        on_first(write_header, plan, directory)
    write_run(result, records)
    return result


def _require_going_on(header: dict[str, Any], plan: RunPlan, start: int) -> None:
    """Refuse a config with which the run cannot go on from where it stands, forced or not."""
    config, chunk = plan.config, plan.updates_per_chunk
    if config.log_every != header["config"]["log_every"]:
        raise ValueError(
            f"log_every = {config.log_every} was {header['config']['log_every']} before: records "
            f"would be of two kinds. Start another run for it."
        )
    if config.num_updates % chunk:
        longer = -(-config.num_updates // chunk) * chunk * config.env_steps_per_update
        raise ValueError(
            f"num_updates = {config.num_updates} is not divisible by the {chunk} updates of this "
            f"run's chunks; use total_steps = {longer}."
        )
    if config.num_updates < start:
        raise ValueError(
            f"num_updates = {config.num_updates} is less than the {start} that are trained "
            f"already; use {start} or more."
        )


def _require_the_same(
    header: dict[str, Any], plan: RunPlan, force: bool, with_budget: bool, trained: bool
) -> None:
    """Refuse to go on where the result could change, unless forced to.

    Another config of the same shapes can be forced; with other shapes the states do not fit. Where
    nothing is left to train, the machine changes nothing.
    """
    now, before = as_json(describe(plan.config)), dict(header["config"])
    if with_budget:
        before["num_updates"] = now["num_updates"]
    changed = differences(before, now)
    if not trained:
        changed += differences(machine_of(header), machine_of(surroundings()))
        if header.get("mesh") != plan.mesh:
            changed.append(f"mesh: {header.get('mesh') or 'all'}, now {plan.mesh or 'all'}")
        if header["seed_batch"] not in (None, plan.seed_batch):
            changed.append(f"seed_batch: {header['seed_batch']}, now {plan.seed_batch}")
    if header["shapes"] != digest(shapes(plan.config)):
        raise ValueError(
            f"the states of this run do not fit the config: {list_differences(changed)}. "
            f"Start another run for it."
        )
    if not changed:
        return
    told = f"not the same as before: {list_differences(changed)}"
    if not force:
        raise ValueError(f"{told}. The result could change; to go on all the same, use --force.")
    warnings.warn(f"{told}.", stacklevel=3)
