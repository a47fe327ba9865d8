"""`reinforce` and `vpg`: from an environment and a few settings to a checked `Config`."""

import difflib
import warnings
from collections.abc import Callable
from typing import Any, TypedDict, Unpack, get_type_hints

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from purerl.algorithms import REINFORCE, VPG, Algorithm
from purerl.config import Config, one_line, require_positive_int
from purerl.envs import check_env, make_env
from purerl.networks import MLPBaseline, MLPPolicy
from purerl.optimizers import clipped_adam
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
    entropy_coef: float
    max_grad_norm: float
    baseline_epochs: int
    normalize_advantage: bool
    log_every: int
    hidden: tuple[int, ...]
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
}


def reinforce(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for REINFORCE: Monte-Carlo returns of whole episodes, no baseline.

    A rollout is by default as long as the environment's time limit (512 steps where there is
    none): what is left of an episode at a rollout's end has weight 0, and a shorter rollout, which
    starves the agent of long episodes, is warned of.
    """
    config = _make_config(env, REINFORCE, {"rollout_length": None}, settings)
    limit = config.env_spec.max_steps
    if not config.algorithm.has_baseline and limit and config.rollout_length < limit:
        warnings.warn(
            f"rollout_length = {config.rollout_length} is shorter than the time limit of {limit} "
            f"steps: episodes that are cut by the rollout's end teach nothing, and agents stall; "
            f"use {limit} or more.",
            stacklevel=2,
        )
    return config


def vpg(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for the vanilla policy gradient: advantage = reward-to-go − a learned baseline.

    The baseline is a second network with its own optimiser, fitted to the reward-to-go by
    `baseline_epochs` full-batch passes after each rollout.
    """
    return _make_config(env, VPG, {}, settings)


def _make_config(
    env: str | Env, algorithm: Algorithm, defaults: dict[str, Any], settings: Settings
) -> Config:
    _check_names(settings)
    given: dict[str, Any] = {
        "total_steps": 300_000,
        "num_envs": 16,
        "rollout_length": 128,
        "baseline_epochs": 10,
        "normalize_advantage": True,
        "log_every": 1,
        "optimizer": clipped_adam,
        "algorithm": algorithm,
        **_HYPER,
        **defaults,
        **settings,
    }
    env_object: Any = make_env(env)[0] if isinstance(env, str) else env
    default_params = getattr(env_object, "default_params", None)
    env_params = jax.tree.map(_to_numpy, given.get("env_params", default_params))
    spec = check_env(env_object, env_params)
    if given["rollout_length"] is None:
        given["rollout_length"] = spec.max_steps or 512
    for name in ("total_steps", "num_envs", "rollout_length", "baseline_epochs", "log_every"):
        require_positive_int(name, given[name])
        given[name] = int(given[name])  # a NumPy int would overflow where steps are counted
    per_update = given["num_envs"] * given["rollout_length"]
    policy, baseline = _networks(given)
    return Config(
        hyper=Hyperparams(**{name: _scalar(name, given[name]) for name in _HYPER}),
        env_params=env_params,
        env=env_object,
        algorithm=given["algorithm"],
        policy=policy,
        baseline=baseline,
        optimizer=given["optimizer"],
        num_envs=given["num_envs"],
        rollout_length=given["rollout_length"],
        num_updates=-(-given["total_steps"] // per_update),
        baseline_epochs=given["baseline_epochs"],
        normalize_advantage=given["normalize_advantage"],
        log_every=given["log_every"],
    )


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


def _networks(given: dict[str, Any]) -> tuple[Callable, Callable | None]:
    has_baseline = getattr(given["algorithm"], "has_baseline", True)
    both = "policy" in given and ("baseline" in given or not has_baseline)
    if "hidden" in given and both:
        raise ValueError("hidden has no effect where the networks are given; leave it out.")
    hidden = given.get("hidden", (64, 64))
    if not isinstance(hidden, list | tuple):
        raise ValueError(f"hidden = {one_line(hidden)} must be widths, such as (64, 64).")
    for size in hidden:
        require_positive_int("hidden", size)
    hidden = tuple(int(size) for size in hidden)
    return (
        given.get("policy", MLPPolicy(hidden=hidden)),
        given.get("baseline", MLPBaseline(hidden=hidden)) if has_baseline else None,
    )


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
