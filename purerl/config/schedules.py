"""Annealing: hyperparameters that fall linearly over a run, in units of updates."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from purerl.config.config import Config


def annealed(config: Config, step: Int[Array, ""] | int) -> Config:
    """The config as update `step` uses it: each hyperparameter in `config.anneal` decayed.

    `hyper_t = hyper · (1 − t / num_updates)`: as configured in the first update, t = 0, and
    1 / num_updates of it in the last, t = num_updates − 1. It stays there in updates beyond.
    """
    if not config.anneal:
        return config
    last = config.num_updates - 1
    left = 1 - jnp.minimum(step, last).astype(jnp.float32) / config.num_updates
    decayed: dict[str, Any] = {name: getattr(config.hyper, name) * left for name in config.anneal}
    hyper = dataclasses.replace(config.hyper, **decayed)
    return eqx.tree_at(lambda c: c.hyper, config, hyper)
