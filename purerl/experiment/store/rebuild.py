"""A config rebuilt from the header of a run.

Names are looked up among purerl's own: nothing that a header names is imported or executed.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from purerl.algorithms import variants
from purerl.checks import option
from purerl.config.config import Config
from purerl.config.optimizers import clipped_adam
from purerl.config.settings import HYPER_DEFAULTS, Asked
from purerl.envs import DOWNLOADING, env_names, make_env
from purerl.experiment.store.fingerprint import describe
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.types import Hyperparams

ACTIVATIONS = ("relu", "elu", "gelu", "silu", "softplus", "leaky_relu", "selu", "mish", "sigmoid")


class NotRebuildableError(Exception):
    """Something of the user's own, which cannot be rebuilt from its description."""


def rebuild_config(
    described: dict[str, Any], asked: dict[str, Any], env_name: str, env: Any = None
) -> Config:
    """Rebuild the config that `describe` has described, and what it was asked for.

    **Arguments:** `env` is the environment where it is the user's own.

    **Raises:** `NotRebuildableError` where something is not purerl's or gymnax's, `ValueError`
    where the environment would download something.
    """
    if env is None:
        if env_name in DOWNLOADING:
            raise ValueError(
                f"env = {env_name!r} downloads its data, and not because a directory says so; give "
                f"it: {option('env', env_name)}."
            )
        env = make_env(env_name)[0] if env_name in env_names() else None
        if env is None or describe(env) != described["env"]:
            raise NotRebuildableError("env")
    names = {field.name for field in dataclasses.fields(Config)} - {"asked"}
    fields = {name: described[name] for name in names}
    names = {name: frozenset(asked[name]) for name in ("given", "preset", "follows")}
    fields["asked"] = Asked(asked["total_steps"], **names)
    hyper = {name: np.asarray(described["hyper"][name], np.float32) for name in HYPER_DEFAULTS}
    own = {name: np.asarray(value, np.float32) for name, value in described["hyper"]["own"].items()}
    fields["hyper"] = Hyperparams(**hyper, own=own)
    default_params = getattr(env, "default_params", None)
    fields["env_params"] = _parameters(default_params, described["env_params"])
    fields["env"] = env
    fields["algorithm"] = _find("algorithm", variants(), described["algorithm"])
    for name in ("policy", "baseline", "policy_optimizer", "baseline_optimizer"):
        fields[name] = rebuild_component(name, described[name])
    fields["schedule"] = tuple((name, shape) for name, shape in described["schedule"])
    return Config(**fields)


def rebuild_component(name: str, described: Any) -> Any:
    """Rebuild a default network or optimiser from its description."""
    if described is None:
        return None
    if described == describe(clipped_adam):
        return clipped_adam
    for network_type in (DefaultPolicy, DefaultBaseline):
        if isinstance(described, dict) and described.get("type") == describe(network_type):
            values = {
                field.name: described[field.name] for field in dataclasses.fields(network_type)
            }
            values["hidden"] = tuple(values["hidden"])
            activations = (jnp.tanh, *(getattr(jax.nn, name) for name in ACTIVATIONS))
            values["activation"] = _find("activation", activations, values["activation"])
            return network_type(**values)
    raise NotRebuildableError(name)


def _find(field: str, known: Iterable[Any], described: Any) -> Any:
    for value in known:
        if describe(value) == described:
            return value
    raise NotRebuildableError(field)


def _parameters(default: PyTree, described: Any) -> PyTree:
    """Put the described values into the structure of the default env parameters."""

    def value(path: Any, leaf: Any) -> np.ndarray:
        node = described
        for entry in path:
            name = getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", None)))
            node = node[name if isinstance(node, list) else str(name)]
        return np.asarray(node, jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype))

    try:
        return jax.tree.map_with_path(value, default)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise NotRebuildableError("env_params") from error
