"""The plan of a run, read back from its header."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from purerl.checks import require_positive_int
from purerl.config.config import Config
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import header_of
from purerl.experiment.store.rebuild import NotNamedError, rebuild_config
from purerl.experiment.store.signed import DamagedError, read_signed
from purerl.experiment.store.spec import RunPlan


def read_header(directory: Path, start: int) -> dict[str, Any]:
    """The header, or where it is damaged the copy that the checkpoint of update `start` has."""
    path = directory / files.HEADER
    try:
        return read_signed(path)
    except (FileNotFoundError, DamagedError) as error:
        if not start:
            raise ValueError(
                f"{path} is damaged, and there is no checkpoint to take it from: nothing can be "
                f"restored; remove {directory}, or name another directory."
            ) from error
        warnings.warn(
            f"{path} is damaged; the copy in the checkpoint of update {start} is used.",
            stacklevel=3,
        )
        return header_of(directory, start)


def plan_of(header: dict[str, Any], config: Config | None = None, env: Any = None) -> RunPlan:
    """The plan that a header tells.

    **Raises:** `ValueError` where it holds something of the user's own, and `config` is not given.
    """
    if header.get("kind") != "run":
        raise ValueError("this directory holds a sweep, not a run of one config.")
    if config is None:
        try:
            config = rebuild_config(header["config"], header["env"], env)
        except NotNamedError as error:
            if env is not None and str(error) == "env_params":
                raise ValueError(
                    f"env = {type(env).__name__} does not have the parameters of {header['env']}, "
                    f"with which the run was trained; give that."
                ) from error
            raise ValueError(
                f"{error} of this run is not purerl's or gymnax's own, and is not stored; "
                f"give {'env (--env package.module:Name) or ' * (str(error) == 'env')}"
                f"the config that it was made with."
            ) from error
    names = {field.name for field in dataclasses.fields(RunPlan)} - {"config", "seed_ids"}
    told: dict[str, Any] = {"mesh": None} | {name: header[name] for name in names if name in header}
    return RunPlan(config=config, seed_ids=tuple(header["seeds"]), **told)


def config_with_budget(plan: RunPlan, total_steps: int, start: int) -> Config:
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
