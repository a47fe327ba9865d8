"""`reinforce`, `vpg`, `a2c`, `ppo`: from an environment and a few settings to a `Config`."""

import difflib
from collections.abc import Callable
from typing import Any, TypedDict, Unpack, get_type_hints

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from purerl.algorithms import (
    A2C,
    PPO,
    REINFORCE,
    VPG,
    Algorithm,
)
from purerl.checks import one_line, require_bool, require_positive_int
from purerl.config.config import Config, require_effect
from purerl.config.optimizers import clipped_adam
from purerl.envs import check_env, make_env, time_limit
from purerl.losses import clipped_squared_error, squared_error
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.types import Env, Hyperparams


class Settings(TypedDict, total=False):
    """What a factory takes besides the environment; each factory has a default for all of them."""

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
    normalize_advantage: bool
    normalize_obs: bool
    normalize_reward: bool
    anneal: tuple[str, ...]
    log_every: int
    hidden: tuple[int, ...]
    std_from_obs: bool
    squash: bool
    policy: Callable[..., eqx.Module]
    baseline: Callable[..., eqx.Module]
    optimizer: Callable[..., Any]
    algorithm: Algorithm
    env_params: PyTree


_HYPER: dict[str, float] = {
    "policy_learning_rate": 3e-3,
    "baseline_learning_rate": 5e-3,
    "discount": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "entropy_coef": 0.0,
    "max_grad_norm": 0.5,
    "target_kl": np.inf,
}

_STATIC: dict[str, Any] = {
    "total_steps": 300_000,
    "num_envs": 16,
    "rollout_length": 128,
    "epochs": 1,
    "baseline_epochs": 1,
    "num_minibatches": 1,
    "normalize_advantage": True,
    "normalize_obs": False,
    "normalize_reward": False,
    "anneal": (),
    "log_every": 1,
    "optimizer": clipped_adam,
}


def reinforce(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for REINFORCE: Monte-Carlo returns of whole episodes, no baseline.

    A rollout is by default as long as the environment's time limit (512 steps where there is
    none): what is left of an episode at a rollout's end has weight 0, and a shorter rollout, which
    starves the agent of long episodes, is warned of.

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

    `baseline_epochs` is `epochs` unless it is given; the learning rates are annealed.

    Schulman et al. (2017), arXiv:1707.06347.
    """
    defaults = {
        "policy_learning_rate": 1e-3,
        "baseline_learning_rate": 1e-3,
        "epochs": 4,
        "baseline_epochs": settings.get("epochs", 4),
        "num_minibatches": 4,
        "anneal": ("policy_learning_rate", "baseline_learning_rate"),
    }
    return _make_config(env, PPO, defaults, settings)


def _make_config(
    env: str | Env, algorithm: Algorithm, defaults: dict[str, Any], settings: Settings
) -> Config:
    _check_names(settings)
    given: dict[str, Any] = {**_STATIC, **_HYPER, **defaults, **settings}
    given["algorithm"] = _algorithm(settings.get("algorithm", algorithm), settings)
    env_object: Any = make_env(env)[0] if isinstance(env, str) else env
    default_params = getattr(env_object, "default_params", None)
    env_params = jax.tree.map(_to_numpy, given.get("env_params", default_params))
    check_env(env_object, env_params)
    has_baseline = getattr(given["algorithm"], "has_baseline", True)
    if "rollout_length" not in settings and not has_baseline:
        given["rollout_length"] = time_limit(env_params) or 512
    for name in ("total_steps", "num_envs", "rollout_length"):
        require_positive_int(name, given[name])
        given[name] = int(given[name])  # a NumPy int would overflow where steps are counted
    per_update = given["num_envs"] * given["rollout_length"]
    policy, baseline = _networks(given)
    given["anneal"] = _names(given["anneal"])
    static: dict[str, Any] = {name: given[name] for name in _STATIC if name != "total_steps"}
    config = Config(
        hyper=Hyperparams(**{name: _scalar(name, given[name]) for name in _HYPER}),
        env_params=env_params,
        env=env_object,
        algorithm=given["algorithm"],
        policy=policy,
        baseline=baseline,
        num_updates=-(-given["total_steps"] // per_update),
        **static,
    )
    require_effect(config, dict(settings))
    return config


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
    """The algorithm, its value loss clipped where `clip_value` says so."""
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


def _networks(given: dict[str, Any]) -> tuple[Callable, Callable | None]:
    has_baseline = getattr(given["algorithm"], "has_baseline", True)
    own_policy = "policy" in given
    own_both = own_policy and ("baseline" in given or not has_baseline)
    for name, own in (("hidden", own_both), ("std_from_obs", own_policy), ("squash", own_policy)):
        if own and name in given:
            raise ValueError(f"{name} has no effect where the networks are given; leave it out.")
    for name in ("std_from_obs", "squash"):
        require_bool(name, given.get(name, False))
    hidden = given.get("hidden", (64, 64))
    if not isinstance(hidden, list | tuple):
        raise ValueError(f"hidden = {one_line(hidden)} must be widths, such as (64, 64).")
    for size in hidden:
        require_positive_int("hidden", size)
    hidden = tuple(int(size) for size in hidden)
    std_from_obs, squash = given.get("std_from_obs", False), given.get("squash", False)
    policy = DefaultPolicy(hidden=hidden, std_from_obs=std_from_obs, squash=squash)
    return (
        given.get("policy", policy),
        given.get("baseline", DefaultBaseline(hidden=hidden)) if has_baseline else None,
    )


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(
            f"anneal = {one_line(value)} must be names, such as ('policy_learning_rate',)."
        )
    return tuple(value)


def _scalar(name: str, value: Any) -> np.ndarray:
    kind = getattr(value, "dtype", type(value))
    if np.ndim(value) != 0 or not np.issubdtype(kind, np.number):
        raise ValueError(
            f"{name} = {one_line(value)} must be a number; several values go to purerl.sweep."
        )
    return np.asarray(value, np.float32)


def _to_numpy(leaf: Any) -> np.ndarray:
    """An env parameter as NumPy, 64 bits cut to 32 as jax would."""
    array = np.asarray(leaf)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
