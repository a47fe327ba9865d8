"""Going on with a run from its newest checkpoint, exactly as if it had not stopped."""

import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from purerl.checks import require_divisor, require_positive_int
from purerl.config import Config
from purerl.experiment import files
from purerl.experiment.checkpoints import header_of, newest, restore, restore_records
from purerl.experiment.describe import describe, digest, shapes
from purerl.experiment.header import differences, machine_of, surroundings
from purerl.experiment.hooks import Chunk
from purerl.experiment.lock import Lock
from purerl.experiment.programs import Programs, divide
from purerl.experiment.rebuild import NotNamedError, rebuild_config
from purerl.experiment.records import Records
from purerl.experiment.result import Run
from purerl.experiment.run import Conduct, Plan, carry_out, check_plan
from purerl.experiment.signed import DamagedError, read_signed
from purerl.train import TrainState


def resume(
    directory: str | Path,
    config: Config | None = None,
    *,
    env: Any = None,
    total_steps: int | None = None,
    force: bool = False,
    memory_limit: int | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 2,
    stop_on_nan: bool = False,
    hooks: Sequence[Callable[[Chunk], Any]] = (),
    progress: bool = True,
) -> Run:
    """Go on with a run from its newest sound checkpoint, or from the start where it has none.

    On the same machine with the same versions the result is bitwise that of a run which was never
    interrupted: states and metrics. A finished run is loaded, and its results are written again.

    **Arguments:**

    - `config`: needed where the environment, a network, a loss or an optimiser is the user's own;
      `env` is enough where it is the environment alone.
    - `total_steps`: another budget. Annealed hyperparameters then fall over the new one.
    - `force`: go on although the config, a version or the machine differs, which may change the
      result.
    - The others are those of `purerl.run`; hooks are first called with all records so far.

    **Raises:** `ValueError` where there is no run, it is in use, its config is needed, or something
    differs and `force` is not given.
    """
    directory = Path(directory)
    if not (directory / files.HEADER).exists() and newest(directory, warn=False) is None:
        raise ValueError(
            f"directory = {str(directory)!r} holds no run; start one with purerl train."
        )
    with Lock(directory):
        start = newest(directory)
        header = read_header(directory, start)
        plan = plan_of(header, config, env)
        if total_steps is not None:
            plan = dataclasses.replace(plan, config=_with_budget(plan, total_steps, start or 0))
        _require_the_same(header, plan, force=force, with_budget=total_steps is not None)
        conduct = Conduct(
            checkpoint_every, keep_checkpoints, memory_limit, stop_on_nan, tuple(hooks), progress
        )
        check_plan(plan, conduct)
        if checkpoint_every is not None:
            require_positive_int("checkpoint_every", checkpoint_every)
            chunk = plan.updates_per_chunk
            require_divisor("updates_per_chunk", chunk, "checkpoint_every", checkpoint_every)
        if start is None:
            return carry_out(plan, conduct, directory)

        def restored(programs: Programs) -> tuple[list[TrainState], Records]:
            states = restore(directory, start, shapes_of(programs))
            return divide(programs, states), restore_records(directory, start)

        return carry_out(plan, conduct, directory, start, restored)


def read_header(directory: Path, start: int | None) -> dict[str, Any]:
    """The header, or where it is damaged the copy that the newest checkpoint has."""
    try:
        return read_signed(directory / files.HEADER)
    except (FileNotFoundError, DamagedError) as error:
        if start is None:
            raise ValueError(f"{directory / files.HEADER} is damaged: {error}.") from error
        warnings.warn(
            f"{directory / files.HEADER} is damaged; the copy in the checkpoint of update {start} "
            f"is used.",
            stacklevel=3,
        )
        return header_of(directory, start)


def plan_of(header: dict[str, Any], config: Config | None = None, env: Any = None) -> Plan:
    """The plan that a header tells.

    **Raises:** `ValueError` where it holds something of the user's own, and `config` is not given.
    """
    if "seeds" not in header or "evaluation_episodes" not in header or "seed_batch" not in header:
        raise ValueError("this directory holds a sweep, not a run of one config.")
    if config is None:
        try:
            config = rebuild_config(header["config"], header["env"], env)
        except NotNamedError as error:
            raise ValueError(
                f"{error} of this run is not purerl's or gymnax's own, and is not stored; "
                f"give {'env (--env package.module:Name) or ' * (str(error) == 'env')}"
                f"the config that it was made with."
            ) from error
    names = {field.name for field in dataclasses.fields(Plan)} - {"config", "seed_ids"}
    told = {name: header[name] for name in names}
    return Plan(config=config, seed_ids=tuple(header["seeds"]), **told)


def shapes_of(programs: Programs) -> TrainState:
    """The shapes of the states of all agents, without padding."""

    def shape(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct((programs.num_agents, *leaf.shape[1:]), leaf.dtype)

    return jax.tree.map(shape, programs.state)


def _with_budget(plan: Plan, total_steps: int, start: int) -> Config:
    """The config with another budget, of whole chunks; what it does to schedules is told."""
    require_positive_int("total_steps", total_steps)
    config, chunk = plan.config, plan.updates_per_chunk
    per_chunk = config.env_steps_per_update * chunk
    num_updates = -(-int(total_steps) // per_chunk) * chunk
    if num_updates < start:
        raise ValueError(
            f"total_steps = {total_steps} is less than the {start * config.env_steps_per_update} "
            f"that are trained already; use more."
        )
    if config.anneal and num_updates != config.num_updates:
        now, then = (1 - start / n for n in (config.num_updates, num_updates))
        warnings.warn(
            f"{', '.join(config.anneal)} now fall to 0 over {num_updates} updates instead of "
            f"{config.num_updates}: at update {start} they go from {max(now, 0):.3g} to "
            f"{then:.3g} of their first values.",
            stacklevel=3,
        )
    return dataclasses.replace(config, num_updates=num_updates)


def _require_the_same(
    header: dict[str, Any], plan: Plan, *, force: bool, with_budget: bool
) -> None:
    """Refuse to go on where the result could change, unless forced to.

    Another config of the same shapes can be forced; with other shapes the states do not fit.
    """
    now = json.loads(json.dumps(describe(plan.config)))
    before = dict(header["config"])
    if with_budget:
        before["num_updates"] = now["num_updates"]
    changed = differences(before, now)
    changed += differences(machine_of(header), machine_of(surroundings()))
    if header["shapes"] != digest(shapes(plan.config)):
        raise ValueError(
            f"the states of this run do not fit the config: {'; '.join(changed)}. "
            f"Start another run for it."
        )
    if not changed:
        return
    told = f"not the same as before: {'; '.join(changed)}"
    if not force:
        raise ValueError(f"{told}. The result could change; to go on all the same, use --force.")
    warnings.warn(f"{told}.", stacklevel=3)
