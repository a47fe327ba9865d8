"""The settings of a config by name: as they are shown, written and given again."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from purerl.algorithms import name_of
from purerl.checks import short_repr
from purerl.config.effects import why_unused
from purerl.config.fields import param_names, param_of
from purerl.config.settings import (
    HYPER_DEFAULTS,
    NETWORK_DEFAULTS,
    STATIC_DEFAULTS,
    all_settings,
    default_of,
)
from purerl.envs import Box
from purerl.losses import clipped_squared_error, squared_error
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy


def settings_of(config: Any) -> dict[str, Any]:
    """The settings with an effect on a config, in the order of `Settings`.

    Given to the factory of the same algorithm, they make an equal config. Numbers are Python's;
    networks, optimisers and an algorithm of one's own are the objects.
    """
    listed = _listed(config)
    unlisted = {name for name in ("own", "env_params") if _is_empty(listed[name])}
    unlisted |= {"lookahead"} if listed["lookahead"] is None else set()
    if not isinstance(config.env_spec.action_space, Box):
        unlisted |= {"std_from_obs", "squash"}
    return {
        name: value
        for name, value in listed.items()
        if name not in unlisted and why_unused(config, name) is None
    }


def shown_config(config: Any) -> str:
    """A config in a few lines: what is trained, and the settings that are unlike the defaults."""
    name = getattr(config.env, "name", type(config.env).__name__)
    lines = [
        f"Config({config.algorithm.name} on {name}: {config.num_updates:,} updates of "
        f"{config.num_envs} envs x {config.rollout_length} steps = {config.env_steps:,} steps"
    ]
    listed, algo = _listed(config), name_of(config.algorithm)
    for source in ("given", "preset"):
        named = [
            name
            for name, value in listed.items()
            if config.asked.source(name) == source
            and (source == "given" or algo is None or _is_unlike(value, default_of(name, algo)))
        ]
        if named:
            shown = ", ".join(f"{name}={shown_value(listed[name])}" for name in named)
            lines.append(f"  {source}: {shown}")
    return "\n".join(lines) + ")"


def shown_value(value: Any) -> str:
    """A setting in a few words: numbers as they are, functions by name."""
    if isinstance(value, Tracer):
        return "traced"
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        return f"{value.size} values"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {shown_value(each)}" for name, each in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value
    return getattr(value, "__name__", None) or short_repr(value)


def _is_unlike(value: Any, default: Any) -> bool:
    """Whether a value is not a default; one that is traced, or one of many, is not."""
    return isinstance(value, Tracer) or np.ndim(value) > len(np.shape(default)) or value != default


def scalar(value: Any) -> Any:
    """A traced scalar as the shortest Python number that becomes it again; others as they are."""
    if isinstance(value, Tracer) or np.ndim(value) != 0:
        return value
    array = np.asarray(value)
    return float(str(array)) if np.issubdtype(array.dtype, np.floating) else array.item()


def _listed(config: Any) -> dict[str, Any]:
    """The value of every setting, in the order of `Settings`."""
    listed: dict[str, Any] = {"total_steps": config.asked.total_steps}
    listed |= {name: getattr(config, name) for name in STATIC_DEFAULTS if name != "total_steps"}
    listed |= {name: scalar(getattr(config.hyper, name)) for name in HYPER_DEFAULTS}
    listed["own"] = {name: scalar(value) for name, value in config.hyper.own.items()}
    listed["schedule"] = dict(config.schedule)
    listed["policy_optimizer"] = config.policy_optimizer
    listed["baseline_optimizer"] = config.baseline_optimizer
    listed["env_params"] = _changed_env_params(config)
    listed |= _networks(config.policy, config.baseline)
    loss = config.algorithm.value_loss
    if loss in (squared_error, clipped_squared_error):
        listed["clip_value"] = loss is clipped_squared_error
    if name_of(config.algorithm) is None:
        listed["algorithm"] = config.algorithm
    return {name: listed[name] for name in all_settings() if name in listed}


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and not value)


def _changed_env_params(config: Any) -> Any:
    """The fields of the environment's parameters that are not its default, by name.

    All of the parameters where they are no fields with names.
    """
    default, params = getattr(config.env, "default_params", None), config.env_params
    names = param_names(default)
    if not names or jax.tree.structure(default) != jax.tree.structure(params):
        return params
    pairs = {name: (param_of(params, name), param_of(default, name)) for name in names}
    return {
        name: scalar(value)
        for name, (value, other) in pairs.items()
        if not _is_same_param(value, other)
    }


def _is_same_param(value: Any, other: Any) -> bool:
    leaves = zip(jax.tree.leaves(value), jax.tree.leaves(other), strict=True)
    return not any(
        isinstance(leaf, Tracer)
        or not np.array_equal(leaf, np.asarray(default, np.asarray(leaf).dtype))
        for leaf, default in leaves
    )


def _networks(policy: Any, baseline: Any) -> dict[str, Any]:
    """The networks by the settings of the default ones, or else as they are."""
    if isinstance(policy, DefaultPolicy):
        settings = {name: getattr(policy, name) for name in NETWORK_DEFAULTS}
        is_of_settings = policy == DefaultPolicy(**settings)
        if is_of_settings and baseline in (None, DefaultBaseline(hidden=policy.hidden)):
            return settings
    return {"policy": policy, "baseline": baseline}
