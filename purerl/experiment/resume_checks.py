"""What must hold where a run goes on: its states are there, and nothing differs unless forced."""

import warnings
from pathlib import Path
from typing import Any

from purerl.checks import option
from purerl.config.config import Config
from purerl.experiment.store import files
from purerl.experiment.store.fingerprint import describe, describe_state, short_hash
from purerl.experiment.store.finished_run import trained_updates
from purerl.experiment.store.header import (
    diff,
    extend_provenance,
    format_diff,
    runtime_info,
    runtime_of,
    through_json,
    where_of,
)
from purerl.experiment.store.paths import READ_RESULT, resume_command, shown
from purerl.experiment.store.spec import RunSpec


def require_states(directory: Path, config: Config, start: int, asked_for_more: bool) -> None:
    """Refuse to train anew what is trained: its states are gone, but its result is there."""
    trained = trained_updates(directory, config)
    has_result = any((directory / name).exists() for name in (files.SUMMARY, files.METRICS))
    if not start and has_result:
        problem, effect = "has a result but no checkpoint", "train it anew"
    elif trained is not None and start < trained and not asked_for_more:
        problem = f"is finished, but has no sound checkpoint after update {start} of {trained}"
        effect = "train the rest anew"
    else:
        return
    raise ValueError(
        f"the run in {shown(directory)} {problem}, so that its states cannot be loaded; "
        f"{READ_RESULT}; to {effect}: {resume_command(directory, force=True)}"
    )


def parts_of_run(header: dict[str, Any], spec: RunSpec, start: int) -> list[dict[str, Any]]:
    """The settings and the machine of each part of a run that goes on."""
    now = spec.header()
    return extend_provenance(header, through_json(now["config"]), where_of(now), start)


def require_resumable(header: dict[str, Any], spec: RunSpec, start: int) -> None:
    """Refuse a config with which the run cannot go on, forced or not."""
    config = spec.config
    if config.log_every != header["config"]["log_every"]:
        raise ValueError(
            f"log_every = {config.log_every} was {header['config']['log_every']} before: records "
            f"would be of two kinds. Start another run for it."
        )
    if config.num_updates < start:
        raise ValueError(
            f"num_updates = {config.num_updates} is less than the {start} that are trained "
            f"already; use {start} or more."
        )


def require_unchanged(
    header: dict[str, Any], spec: RunSpec, force: bool, has_new_budget: bool, trained: bool
) -> None:
    """Refuse to go on where the result could change, unless forced to.

    Another config can be forced if its states have the same shapes. Where nothing is left to train,
    the machine does not matter.
    """
    config, before = through_json(describe(spec.config)), dict(header["config"])
    if has_new_budget:
        before["num_updates"] = config["num_updates"]
    changes = diff(before, config)
    if not trained:
        changes += diff(runtime_of(header), runtime_of(runtime_info()))
        if header["mesh"] != spec.mesh:
            changes.append(f"mesh: {header['mesh'] or 'all'}, now {spec.mesh or 'all'}")
        if header["seed_batch"] not in (None, spec.seed_batch):
            changes.append(f"seed_batch: {header['seed_batch']}, now {spec.seed_batch}")
    if header["shapes"] != short_hash(describe_state(spec.config)):
        raise ValueError(
            f"the states of this run do not fit the config: {format_diff(changes)}. "
            f"Start another run for it."
        )
    if not changes:
        return
    difference = f"not the same as before: {format_diff(changes)}"
    if not force:
        raise ValueError(
            f"{difference}. The result could change; to go on all the same, use {option('force')}."
        )
    warnings.warn(f"{difference}.", stacklevel=3)
