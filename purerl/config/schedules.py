"""Schedules: how hyperparameters change over a run, each by a pure function of its progress."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from purerl.checks import short_repr
from purerl.types import Hyperparams, default_float

SCHEDULABLE = ("policy_learning_rate", "baseline_learning_rate", "entropy_coef", "clip_eps")


def linear(progress: Float[Array, ""]) -> Float[Array, ""]:
    """`1 − progress`: all of the value in the first update, 1 / num_updates of it in the last."""
    return 1 - progress


# A shape gives the share of its value that a hyperparameter has at some progress, from 0 to 1.
SHAPES: dict[str, Callable[[Float[Array, ""]], Float[Array, ""]]] = {"linear": linear}


def share_at(shape: str, step: Int[Array, "*batch"], num_updates: int) -> Float[Array, "*batch"]:
    """`shape(t / num_updates)` after t updates; beyond the last update, as it was there."""
    return SHAPES[shape](jnp.minimum(step, num_updates - 1).astype(default_float()) / num_updates)


def hyper_at(config: Any, state: Any) -> Hyperparams:
    """The hyperparameters of a state's next update: each in `config.schedule` times its share."""
    hyper = jax.tree.map(lambda x: jnp.asarray(x, default_float()), config.hyper)
    shapes = sorted({shape for _, shape in config.schedule})
    shares = {shape: share_at(shape, state.step, config.num_updates) for shape in shapes}
    for name, shape in config.schedule:
        hyper = hyper.with_value(name, hyper.value(name) * shares[shape])
    return hyper


def sorted_schedule(schedule: Any) -> tuple[tuple[str, str], ...]:
    """The sorted pairs of a mapping `{name: shape}`, or of such pairs: equal ones are one program.

    **Raises:** `ValueError` for anything else, a name without a schedule, or an unknown shape.
    """
    try:
        pairs = tuple(sorted(dict(schedule).items()))
        is_named = all(isinstance(text, str) for pair in pairs for text in pair)
    except (TypeError, ValueError):
        is_named = False
    if not is_named:
        raise ValueError(
            f"schedule = {short_repr(schedule)} must be shapes by name, such as "
            f"{{'policy_learning_rate': 'linear'}}."
        )
    for name, shape in pairs:
        if name not in SCHEDULABLE and not name.startswith("own."):
            raise ValueError(
                f"schedule: {name!r} cannot be scheduled; use {', '.join(SCHEDULABLE)}."
            )
        if shape not in SHAPES:
            raise ValueError(
                f"schedule: {name} = {shape!r} is no shape of a schedule; use {', '.join(SHAPES)}."
            )
    return pairs
