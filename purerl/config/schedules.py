"""Schedules: how hyperparameters change over a run, each by a pure function of its progress."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from purerl.types import Hyperparams

SCHEDULABLE = ("policy_learning_rate", "baseline_learning_rate", "entropy_coef", "clip_eps")


def linear(progress: Float[Array, ""]) -> Float[Array, ""]:
    """`1 − progress`: all of the value in the first update, 1 / num_updates of it in the last."""
    return 1 - progress


# A shape is the factor of a hyperparameter as a function of progress, which goes from 0 to 1.
SHAPES: dict[str, Callable[[Float[Array, ""]], Float[Array, ""]]] = {"linear": linear}


@runtime_checkable
class Scheduled(Protocol):
    """What `hyper_at` reads of a config."""

    hyper: Hyperparams
    schedule: tuple[tuple[str, str], ...]
    num_updates: int


@runtime_checkable
class Counted(Protocol):
    """What `hyper_at` reads of a training state."""

    step: Int[Array, "*batch"]


def hyper_at(config: Scheduled, state: Counted) -> Hyperparams:
    """The hyperparameters that the next update of a state uses.

    `hyper_t = hyper · shape(t / num_updates)` for each name in `config.schedule`, with t the
    updates trained so far. Beyond the last update it stays as it was.
    """
    if not config.schedule:
        return config.hyper
    last = config.num_updates - 1
    progress = jnp.minimum(state.step, last).astype(jnp.float32) / config.num_updates
    shapes = sorted({shape for _, shape in config.schedule})
    factors = {shape: SHAPES[shape](progress) for shape in shapes}
    scheduled: dict[str, Any] = {
        name: getattr(config.hyper, name) * factors[shape] for name, shape in config.schedule
    }
    return dataclasses.replace(config.hyper, **scheduled)


def check_schedule(schedule: tuple[tuple[str, str], ...]) -> None:
    """Refuse names that cannot be scheduled, and unknown shapes."""
    for name, shape in schedule:
        if name not in SCHEDULABLE:
            raise ValueError(
                f"schedule: {name!r} cannot be scheduled; use {', '.join(SCHEDULABLE)}."
            )
        if shape not in SHAPES:
            raise ValueError(f"schedule: {name} = {shape!r} is no shape; use {', '.join(SHAPES)}.")
