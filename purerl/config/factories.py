"""`reinforce`, `vpg`, `a2c`, `ppo`: from an environment and a few settings to a `Config`."""

from collections.abc import Mapping
from typing import Any, Unpack

import jax

from purerl.algorithms import ALGORITHMS
from purerl.config.config import Config
from purerl.config.effects import require_used
from purerl.config.fields import (
    filled_env_params,
    following,
    has_no_baseline,
    make_fields,
    to_array,
)
from purerl.config.optimizers import clipped_adam
from purerl.config.settings import (
    ALGORITHM_DEFAULTS,
    DEFAULTS,
    NETWORK_DEFAULTS,
    Asked,
    Settings,
    check_names,
    is_following,
    shows_settings,
)
from purerl.envs import check_env, make_env
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.types import Env


@shows_settings("reinforce")
def reinforce(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for REINFORCE: Monte-Carlo returns, no baseline.

    A step is learnt from where the rollout holds its next `lookahead` steps (by default half of the
    rollout), or all that the time limit leaves its episode.

    **Raises:** `ValueError` for a setting that is out of range or without effect; so do the others.
    """
    return make_config(env, "reinforce", {}, settings)


@shows_settings("vpg")
def vpg(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for the vanilla policy gradient: advantage = reward-to-go − a learned baseline.

    The baseline is a second network with its own optimiser, fitted to the reward-to-go by
    `baseline_epochs` full-batch passes after each rollout.
    """
    return make_config(env, "vpg", {}, settings)


@shows_settings("a2c")
def a2c(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for the advantage actor-critic: generalised advantages, one step a short rollout.

    Mnih et al. (2016), arXiv:1602.01783, synchronous.
    """
    return make_config(env, "a2c", {}, settings)


@shows_settings("ppo")
def ppo(env: str | Env, **settings: Unpack[Settings]) -> Config:
    """Settings for PPO: the clipped surrogate, several epochs of minibatches over each rollout.

    `baseline_epochs` is `epochs` unless it is given; the learning rates fall linearly.

    Schulman et al. (2017), arXiv:1707.06347.
    """
    return make_config(env, "ppo", {}, settings)


def make_config(
    env: str | Env, algo: str, tuned: Mapping[str, Any], settings: Mapping[str, Any]
) -> Config:
    """The config of an algorithm with what is `tuned` for the environment, and given settings."""
    check_names(settings)
    env_object: Any = make_env(env)[0] if isinstance(env, str) else env
    default_params = getattr(env_object, "default_params", None)
    settings = {name: v for name, v in settings.items() if not is_following(name, v)}
    if "env_params" in settings:
        settings["env_params"] = filled_env_params(default_params, settings["env_params"])
    current = {**DEFAULTS, **ALGORITHM_DEFAULTS[algo], **tuned}
    of_networks = {name: current.pop(name) for name in NETWORK_DEFAULTS}
    current |= {
        "algorithm": ALGORITHMS[algo],
        "policy": DefaultPolicy(**of_networks),
        "baseline": DefaultBaseline(hidden=of_networks["hidden"]),
        "policy_optimizer": clipped_adam,
        "baseline_optimizer": clipped_adam,
        "env_params": default_params,
    }
    merged = {**current, **settings}
    env_params = jax.tree.map(to_array, merged["env_params"])
    check_env(env_object, env_params)
    given = frozenset(settings)
    stated = frozenset(name for name, value in tuned.items() if value is not None) - given
    is_free = has_no_baseline(merged["algorithm"]) and "rollout_length" not in given | stated
    followed = following(merged, env_params, follows={"rollout_length"} if is_free else ())
    current |= followed
    if has_no_baseline(merged["algorithm"]):
        current["schedule"] = {
            name: shape for name, shape in current["schedule"].items() if "baseline" not in name
        }
    fields = make_fields(current, settings)
    asked = Asked(int(merged["total_steps"]), given, stated, frozenset(followed))
    config = Config(env=env_object, asked=asked, **fields)
    require_used(config, settings)
    return config
