"""The fields of a `Config` that settings become."""

import dataclasses
import functools
from collections.abc import Container, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from purerl.algorithms import Algorithm
from purerl.checks import ceil_div, require_bool, require_int32, require_positive_int, short_repr
from purerl.config.schedules import sorted_schedule
from purerl.config.settings import HYPER_DEFAULTS, STATIC_DEFAULTS, as_int
from purerl.envs import time_limit
from purerl.losses import clipped_squared_error, squared_error
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.networks.values import by_value
from purerl.types import Hyperparams, default_float


def make_fields(current: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config, but its environment, from settings over what stands so far.

    **Arguments:** `current` has hyperparameters and fields by name, with `total_steps`; `settings`
    are those that are given, and checked by name.
    """
    settings = {name: as_int(by_value(name, value)) for name, value in settings.items()}
    merged = {**current, **settings}
    algorithm = _algorithm(merged["algorithm"], settings)
    for name in STATIC_DEFAULTS:
        if isinstance(merged[name], jax.Array):
            raise ValueError(
                f"{name} = {short_repr(merged[name])} is an array of jax, but must be known before "
                f"anything is traced; give a number of Python or NumPy."
            )
    for name in ("total_steps", "num_envs", "rollout_length"):
        require_positive_int(name, merged[name])
    steps = merged["num_envs"] * merged["rollout_length"]
    has_baseline = not has_no_baseline(algorithm)
    policy, baseline = _networks(merged["policy"], merged["baseline"], settings, has_baseline)
    policy_optimizer, baseline_optimizer = _optimizers(merged, settings, has_baseline)

    def number(name):  # what stands so far may be the values of a sweep
        make = functools.partial(_scalar, name) if name in settings else _float
        return make(merged[name])

    return {
        **{name: merged[name] for name in STATIC_DEFAULTS if name != "total_steps"},
        "hyper": Hyperparams(
            **{name: number(name) for name in HYPER_DEFAULTS},
            own=_own(merged["own"]) if "own" in settings else merged["own"],
        ),
        "policy_optimizer": policy_optimizer,
        "baseline_optimizer": baseline_optimizer,
        "env_params": jax.tree.map(to_array, merged["env_params"]),
        "algorithm": algorithm,
        "policy": policy,
        "baseline": baseline,
        "num_updates": ceil_div(merged["total_steps"], steps),
        "schedule": sorted_schedule(merged["schedule"]),
    }


def has_no_baseline(algorithm: Any) -> bool:
    """Whether an algorithm is one, and has no baseline."""
    return not getattr(algorithm, "has_baseline", True)


def following(
    merged: Mapping[str, Any], env_params: PyTree, *, follows: Container[str]
) -> dict[str, int]:
    """The settings that follow from others: those in `follows`, and those that are None."""
    values = {}
    if merged["baseline_epochs"] is None or "baseline_epochs" in follows:
        values["baseline_epochs"] = merged["epochs"]
    if merged["rollout_length"] is None or "rollout_length" in follows:
        values["rollout_length"] = STATIC_DEFAULTS["rollout_length"]
        if has_no_baseline(merged["algorithm"]):
            values["rollout_length"] = look_ahead_length(time_limit(env_params), merged)
    return values


def look_ahead_length(limit: int | None, merged: Mapping[str, Any]) -> int:
    """A rollout twice the time limit, or shorter, for the sake of more updates.

    `2 min(limit, 512)`, halved (not below 128) while the run would have fewer than 50 updates.
    """
    for name in ("total_steps", "num_envs"):
        require_positive_int(name, merged[name])
    total_steps, num_envs = int(merged["total_steps"]), int(merged["num_envs"])
    length = 2 * min(limit or 512, 512)
    while length // 2 >= 128 and total_steps <= 49 * num_envs * length:
        length //= 2
    return length


def _algorithm(algorithm: Any, settings: Mapping[str, Any]) -> Any:
    """The algorithm, with a clipped value loss where `clip_value` is True, without where False."""
    clip_value = settings.get("clip_value")
    if clip_value is None or not isinstance(algorithm, Algorithm):
        return algorithm
    require_bool("clip_value", clip_value)
    if algorithm.value_loss not in (squared_error, clipped_squared_error):
        if not clip_value:
            return algorithm
        raise ValueError(
            f"clip_value = True clips a squared error, but {algorithm.name} has another value "
            f"loss or none; leave it out."
        )
    loss = clipped_squared_error if clip_value else squared_error
    return algorithm._replace(value_loss=loss)


def _networks(
    policy: Any, baseline: Any, settings: Mapping[str, Any], has_baseline: bool
) -> tuple[Any, Any]:
    """Both networks, with `hidden` and the like where they are not the user's own."""
    changes = {name: settings[name] for name in ("std_from_obs", "squash") if name in settings}
    for name, flag in changes.items():
        require_bool(name, flag)
    widths = {"hidden": _widths(settings["hidden"])} if "hidden" in settings else {}
    if has_baseline and baseline is None:
        baseline = DefaultBaseline(hidden=getattr(policy, "hidden", (64, 64)))
    has_default_policy = isinstance(policy, DefaultPolicy) and "policy" not in settings
    has_default_baseline = isinstance(baseline, DefaultBaseline) and "baseline" not in settings
    in_use = has_default_policy or (has_baseline and has_default_baseline)
    refused = [*widths] * (not in_use) + [*changes] * (not has_default_policy)
    if refused:
        raise ValueError(f"{refused[0]} has no effect where the networks are given; leave it out.")
    if has_default_policy:
        policy = dataclasses.replace(policy, **widths, **changes)
    if has_default_baseline:
        baseline = dataclasses.replace(baseline, **widths)
    return policy, baseline if has_baseline else None


def _optimizers(
    merged: Mapping[str, Any], settings: Mapping[str, Any], has_baseline: bool
) -> tuple[Any, Any]:
    """The optimisers of both networks; `optimizer` is that of each without one of its own."""
    names = ["policy_optimizer", "baseline_optimizer"][: 1 + has_baseline]
    if "optimizer" in settings and all(name in settings for name in names):
        raise ValueError(
            f"optimizer = {short_repr(settings['optimizer'])} has no effect beside "
            f"{' and '.join(names)}; leave it out."
        )
    made = [settings.get(name, settings.get("optimizer", merged[name])) for name in names]
    return made[0], made[1] if has_baseline else None


def _widths(hidden: Any) -> tuple[int, ...]:
    if not isinstance(hidden, list | tuple):
        raise ValueError(f"hidden = {short_repr(hidden)} must be widths, such as (64, 64).")
    for size in hidden:
        require_int32("hidden", size)
    return tuple(int(size) for size in hidden)


def _own(own: Any) -> dict[str, Any]:
    """The hyperparameters of an own loss or estimate, by name."""
    if not isinstance(own, Mapping):
        raise ValueError(
            f"own = {short_repr(own)} must be numbers by name, such as {{'kl_coef': 0.1}}."
        )
    for name in own:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"own: {name!r} is no name; use one such as 'kl_coef'.")
    return {name: _scalar(f"own.{name}", value) for name, value in sorted(own.items())}


def param_names(params: Any) -> list[str]:
    """The names of the fields of environment parameters; none where they have no names."""
    if isinstance(params, Mapping):
        return [name for name in params if isinstance(name, str)]
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        return [field.name for field in dataclasses.fields(params)]
    return [*getattr(params, "_fields", ())]


def param_of(params: Any, name: str) -> Any:
    """A field of environment parameters."""
    return params[name] if isinstance(params, Mapping) else getattr(params, name)


def filled_env_params(params: PyTree, given: Any) -> PyTree:
    """Environment parameters with some fields changed by name, or those that are given whole."""
    names = param_names(params)
    if not isinstance(given, Mapping) or (isinstance(params, Mapping) and not names):
        return given
    for name in given:
        if name not in names:
            raise ValueError(
                f"env_params.{name} is no parameter of this environment; "
                + (f"use {', '.join(names)}." if names else "it has none by name.")
            )
    changes = {
        name: _as_before(f"env_params.{name}", value, param_of(params, name))
        for name, value in given.items()
    }
    if isinstance(params, Mapping):
        return {**params, **changes}
    if hasattr(params, "_replace"):
        return params._replace(**changes)
    return dataclasses.replace(params, **changes) if changes else params


def _as_before(name: str, value: Any, before: Any) -> Any:
    """A number in the dtype of the one that it replaces; anything else as it is."""
    numbers = (bool, int, float, np.number, np.bool_, np.ndarray, jax.Array)
    if isinstance(value, Tracer) or np.ndim(before) != 0 or not isinstance(before, numbers):
        return value
    if not isinstance(value, numbers) or np.ndim(value) != 0:
        raise ValueError(f"{name} = {short_repr(value)} must be one number.")
    dtype = getattr(before, "dtype", None) or np.asarray(before).dtype
    return as_dtype(name, np.asarray(value), dtype)[()]


def as_dtype(name: str, values: np.ndarray, dtype: Any) -> np.ndarray:
    """Numbers in a dtype, with 64 bits cut to 32 as jax would; refuse any that it cannot hold."""
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    with np.errstate(all="ignore"):
        array = values.astype(dtype)
    is_float = np.issubdtype(dtype, np.floating)
    is_kept = np.isfinite(array) == np.isfinite(values) if is_float else array == values
    if np.all(is_kept) and not (values.dtype.kind == "b" and dtype.kind != "b"):
        return array
    shown = values.item() if values.ndim == 0 else np.unique(values).tolist()
    raise ValueError(
        f"{name} = {short_repr(shown)} does not fit its dtype {dtype}; give values that it holds."
    )


def _float(value: Any) -> Any:
    return to_array(value, default_float())


def _scalar(name: str, value: Any) -> Any:
    dtype = getattr(value, "dtype", type(value))
    if np.ndim(value) != 0 or not np.issubdtype(dtype, np.number):
        raise ValueError(
            f"{name} = {short_repr(value)} must be a number; several values go to purerl.sweep."
        )
    return _float(value)


def to_array(value: Any, dtype: Any = None) -> Any:
    """A setting that is traced, as NumPy, with 64 bits cut to 32 as jax would; a tracer as it is.

    So a config can be made within a user's `jit`.
    """
    if isinstance(value, Tracer):
        return value if dtype is None else value.astype(dtype)
    array = np.asarray(value)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype) if dtype is None else dtype)
