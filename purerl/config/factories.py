"""`reinforce`, `vpg`, `a2c`, `ppo`: from an environment and a few settings to a `Config`."""

from typing import Any, Unpack

import jax

from purerl.algorithms import A2C, PPO, REINFORCE, VPG, Algorithm
from purerl.config.config import Config
from purerl.config.effects import require_used
from purerl.config.optimizers import clipped_adam
from purerl.config.settings import (
    HYPER_DEFAULTS,
    STATIC_DEFAULTS,
    Asked,
    Settings,
    check_names,
    has_no_baseline,
    look_ahead_length,
    make_fields,
    to_array,
)
from purerl.envs import check_env, make_env, time_limit
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.types import Env

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
    check_names(settings)
    env_object: Any = make_env(env)[0] if isinstance(env, str) else env
    current: dict[str, Any] = {
        **STATIC_DEFAULTS,
        **HYPER_DEFAULTS,
        **defaults,
        "algorithm": algorithm,
        "own": {},
        "policy": DefaultPolicy(),
        "baseline": DefaultBaseline(),
        "policy_optimizer": clipped_adam,
        "baseline_optimizer": clipped_adam,
        "env_params": getattr(env_object, "default_params", None),
    }
    merged = {**current, **settings}
    env_params = jax.tree.map(to_array, merged["env_params"])
    check_env(env_object, env_params)
    if "rollout_length" not in settings and has_no_baseline(merged["algorithm"]):
        current["rollout_length"] = look_ahead_length(time_limit(env_params), merged)
    fields = make_fields(current, settings)
    asked = Asked(int(merged["total_steps"]), given=frozenset(settings))
    config = Config(env=env_object, asked=asked, **fields)
    require_used(config, dict(settings))
    return config
