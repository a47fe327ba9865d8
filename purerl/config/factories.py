"""`reinforce`, `vpg`, `a2c`, `ppo`: from an environment and a few settings to a `Config`."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, Unpack, get_type_hints

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from purerl.algorithms import A2C, PPO, REINFORCE, VPG, Algorithm
from purerl.checks import ceil_div, require_bool, require_int32, require_positive_int, short_repr
from purerl.config.config import Config, require_used
from purerl.config.optimizers import clipped_adam
from purerl.config.schedules import sorted_schedule
from purerl.envs import check_env, make_env, time_limit
from purerl.losses import clipped_squared_error, squared_error
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.types import Env, Hyperparams, default_float


class Settings(TypedDict, total=False):
    """The settings that a factory takes besides the environment; all have a default."""

    total_steps: int
    num_envs: int
    rollout_length: int
    policy_learning_rate: float
    baseline_learning_rate: float
    discount: float
    gae_lambda: float
    clip_eps: float
    clip_value: bool
    entropy_coef: float
    max_grad_norm: float
    target_kl: float
    epochs: int
    baseline_epochs: int
    num_minibatches: int
    lookahead: int
    normalize_advantage: bool
    normalize_obs: bool
    normalize_reward: bool
    schedule: Mapping[str, str]
    log_every: int
    hidden: tuple[int, ...]
    std_from_obs: bool
    squash: bool
    policy: Callable[..., eqx.Module]
    baseline: Callable[..., eqx.Module]
    optimizer: Callable[..., Any]
    algorithm: Algorithm
    env_params: PyTree


HYPER_DEFAULTS: dict[str, float] = {
    "policy_learning_rate": 3e-3,
    "baseline_learning_rate": 5e-3,
    "discount": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "entropy_coef": 0.0,
    "max_grad_norm": 0.5,
    "target_kl": np.inf,
}

STATIC_DEFAULTS: dict[str, Any] = {
    "total_steps": 300_000,
    "num_envs": 16,
    "rollout_length": 128,
    "epochs": 1,
    "baseline_epochs": 1,
    "num_minibatches": 1,
    "lookahead": None,
    "normalize_advantage": True,
    "normalize_obs": False,
    "normalize_reward": False,
    "schedule": {},
    "log_every": 1,
    "optimizer": clipped_adam,
}

BOTH_RATES = {"policy_learning_rate": "linear", "baseline_learning_rate": "linear"}


def reinforce(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for REINFORCE: Monte-Carlo returns, no baseline.

    A step is learnt from where the rollout holds its next `lookahead` steps (by default half of the
    rollout), or all that the time limit leaves its episode. A rollout is by default twice the time
    limit L, `2 min(L, 512)`, halved (not below 128) while there would be fewer than 50 updates.

    **Raises:** `ValueError` for a setting that is out of range or without effect; so do the others.
    """
    return _make_config(env, REINFORCE, {}, settings)


def vpg(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for the vanilla policy gradient: advantage = reward-to-go − a learned baseline.

    The baseline is a second network with its own optimiser, fitted to the reward-to-go by
    `baseline_epochs` full-batch passes after each rollout.
    """
    return _make_config(env, VPG, {"baseline_epochs": 10}, settings)


def a2c(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for the advantage actor-critic: generalised advantages, one step a short rollout.

    Mnih et al. (2016), arXiv:1602.01783, synchronous.
    """
    defaults = {"rollout_length": 32, "baseline_epochs": 4}
    return _make_config(env, A2C, defaults, settings)


def ppo(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for PPO: the clipped surrogate, several epochs of minibatches over each rollout.

    `baseline_epochs` is `epochs` unless it is given; the learning rates fall linearly.

    Schulman et al. (2017), arXiv:1707.06347.
    """
    defaults = {
        "policy_learning_rate": 1e-3,
        "baseline_learning_rate": 1e-3,
        "epochs": 4,
        "baseline_epochs": settings.get("epochs", 4),
        "num_minibatches": 4,
        "schedule": BOTH_RATES,
    }
    return _make_config(env, PPO, defaults, settings)


def _make_config(
    env: str | Env, algorithm: Algorithm, defaults: dict[str, Any], settings: Settings
) -> Config:
    _check_names(settings)
    merged: dict[str, Any] = {**STATIC_DEFAULTS, **HYPER_DEFAULTS, **defaults, **settings}
    merged["algorithm"] = _algorithm(settings.get("algorithm", algorithm), settings)
    env_object: Any = make_env(env)[0] if isinstance(env, str) else env
    default_params = getattr(env_object, "default_params", None)
    env_params = jax.tree.map(_to_numpy, merged.get("env_params", default_params))
    check_env(env_object, env_params)
    has_baseline = getattr(merged["algorithm"], "has_baseline", True)
    if "rollout_length" not in settings and not has_baseline:
        merged["rollout_length"] = _look_ahead_length(time_limit(env_params), merged)
    for name in ("total_steps", "num_envs", "rollout_length"):
        require_positive_int(name, merged[name])
        merged[name] = int(merged[name])  # a NumPy int would overflow where steps are counted
    env_steps_per_update = merged["num_envs"] * merged["rollout_length"]
    policy, baseline = _networks(merged)
    merged["schedule"] = sorted_schedule(merged["schedule"])
    config = Config(
        hyper=Hyperparams(**{name: _scalar(name, merged[name]) for name in HYPER_DEFAULTS}),
        env_params=env_params,
        env=env_object,
        algorithm=merged["algorithm"],
        policy=policy,
        baseline=baseline,
        num_updates=ceil_div(merged["total_steps"], env_steps_per_update),
        **{name: merged[name] for name in STATIC_DEFAULTS if name != "total_steps"},
    )
    require_used(config, dict(settings))
    return config


def _look_ahead_length(limit: int | None, merged: dict[str, Any]) -> int:
    """A rollout twice the time limit, or shorter, for the sake of more updates.

    `2 min(limit, 512)`, halved (not below 128) while the run would have fewer than 50 updates.
    """
    for name in ("total_steps", "num_envs"):
        require_positive_int(name, merged[name])
    length = 2 * min(limit or 512, 512)
    while length // 2 >= 128 and merged["total_steps"] <= 49 * merged["num_envs"] * length:
        length //= 2
    return length


def _check_names(settings: Settings) -> None:
    known = get_type_hints(Settings)
    for name in settings:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise ValueError(
                f"{name} is not a setting; did you mean {' or '.join(nearest)}?"
                if nearest
                else f"{name} is not a setting; use one of {', '.join(known)}."
            )


def _algorithm(algorithm: Any, settings: Settings) -> Any:
    """The algorithm, with a clipped value loss where `clip_value` is True."""
    clip_value = settings.get("clip_value", False)
    require_bool("clip_value", clip_value)
    if not clip_value or not isinstance(algorithm, Algorithm):
        return algorithm
    if algorithm.value_loss is not squared_error:
        raise ValueError(
            f"clip_value = True clips a squared error, but {algorithm.name} has another value "
            f"loss or none; leave it out."
        )
    return algorithm._replace(value_loss=clipped_squared_error)


def _networks(merged: dict[str, Any]) -> tuple[Callable, Callable | None]:
    has_baseline = getattr(merged["algorithm"], "has_baseline", True)
    own_policy = "policy" in merged
    own_both = own_policy and ("baseline" in merged or not has_baseline)
    for name, own in (("hidden", own_both), ("std_from_obs", own_policy), ("squash", own_policy)):
        if own and name in merged:
            raise ValueError(f"{name} has no effect where the networks are given; leave it out.")
    flags = {name: merged.get(name, False) for name in ("std_from_obs", "squash")}
    for name, flag in flags.items():
        require_bool(name, flag)
    hidden = merged.get("hidden", (64, 64))
    if not isinstance(hidden, list | tuple):
        raise ValueError(f"hidden = {short_repr(hidden)} must be widths, such as (64, 64).")
    for size in hidden:
        require_int32("hidden", size)
    hidden = tuple(int(size) for size in hidden)
    policy = DefaultPolicy(hidden=hidden, **flags)
    baseline = merged.get("baseline", DefaultBaseline(hidden=hidden)) if has_baseline else None
    return merged.get("policy", policy), baseline


def _scalar(name: str, value: Any) -> np.ndarray:
    dtype = getattr(value, "dtype", type(value))
    if np.ndim(value) != 0 or not np.issubdtype(dtype, np.number):
        raise ValueError(
            f"{name} = {short_repr(value)} must be a number; several values go to purerl.sweep."
        )
    return np.asarray(value, default_float())


def _to_numpy(leaf: Any) -> np.ndarray:
    """An env parameter as NumPy, 64 bits cut to 32 as jax would."""
    array = np.asarray(leaf)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
