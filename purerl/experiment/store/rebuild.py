"""A config from the header of a run: what has a name is made again, by name and value.

Nothing that a header says is imported or executed: names are looked up among purerl's own.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from purerl.algorithms import A2C, PPO, REINFORCE, VPG, Algorithm
from purerl.config.config import Config
from purerl.config.optimizers import clipped_adam
from purerl.envs import env_names, make_env
from purerl.experiment.store.fingerprint import describe
from purerl.losses import clipped_squared_error
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.types import Hyperparams

ACTIVATIONS = ("relu", "elu", "gelu", "silu", "softplus", "leaky_relu", "selu", "mish", "sigmoid")


class NotNamedError(Exception):
    """Something that a user brought, which its description does not make again."""


def rebuild_config(described: dict[str, Any], env_name: str, env: Any = None) -> Config:
    """The config that `describe` has told.

    **Arguments:** `env` is given where the environment is the user's own, and is taken as it is.

    **Raises:** `NotNamedError` where something is not purerl's or gymnax's.
    """
    if env is None:
        if env_name not in env_names():
            raise NotNamedError("env")
        env = make_env(env_name)[0]
        if describe(env) != described["env"]:
            raise NotNamedError("env")
    fields = {field.name: described[field.name] for field in dataclasses.fields(Config)}
    fields["hyper"] = Hyperparams(
        **{
            field.name: np.asarray(described["hyper"][field.name], np.float32)
            for field in dataclasses.fields(Hyperparams)
        }
    )
    default_params = getattr(env, "default_params", None)
    fields["env_params"] = _parameters(default_params, described["env_params"])
    fields["env"] = env
    fields["algorithm"] = _algorithm(described["algorithm"])
    for name in ("policy", "baseline", "optimizer"):
        fields[name] = rebuild_plug(name, described[name])
    fields["anneal"] = tuple(described["anneal"])
    return Config(**fields)


def rebuild_plug(name: str, described: Any) -> Any:
    """A default network or optimiser from its description."""
    if described is None:
        return None
    if described == describe(clipped_adam):
        return clipped_adam
    for kind in (DefaultPolicy, DefaultBaseline):
        if isinstance(described, dict) and described.get("type") == describe(kind):
            values = {field.name: described[field.name] for field in dataclasses.fields(kind)}
            values["hidden"] = tuple(values["hidden"])
            values["activation"] = _activation(values["activation"])
            return kind(**values)
    raise NotNamedError(name)


def _activation(described: Any) -> Any:
    known = (jnp.tanh, *(getattr(jax.nn, name) for name in ACTIVATIONS))
    for each in known:
        if describe(each) == described:
            return each
    raise NotNamedError("activation")


def _algorithm(described: Any) -> Algorithm:
    named = (REINFORCE, VPG, A2C, PPO)
    clipped = (each._replace(value_loss=clipped_squared_error) for each in named)
    for each in (*named, *clipped):
        if describe(each) == described:
            return each
    raise NotNamedError("algorithm")


def _parameters(default: PyTree, described: Any) -> PyTree:
    """Env parameters of the structure of the default ones, with the values described."""

    def value(path: Any, leaf: Any) -> np.ndarray:
        found = described
        for entry in path:
            name = getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", None)))
            found = found[name if isinstance(found, list) else str(name)]
        dtype = jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype)
        return np.asarray(found, dtype)

    try:
        return jax.tree.map_with_path(value, default)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NotNamedError("env_params") from error
