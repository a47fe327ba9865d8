"""Settings tuned for an environment: what the command line trains with unless told otherwise."""

import math
from typing import Any, Unpack

from purerl.config.config import Config
from purerl.config.factories import a2c, make_config, ppo, reinforce, vpg
from purerl.config.settings import BOTH_RATES, OF_PRESET, Settings, shows_settings
from purerl.types import Env

# What presets rely on besides: stated here, so that a change of defaults moves none of them.
# None: it follows from other settings, as `Settings` says.
_COMMON: Settings = {
    "hidden": (64, 64),
    "discount": 0.99,
    "entropy_coef": 0.0,
    "max_grad_norm": 0.5,
    "epochs": 1,
    "num_minibatches": 1,
    "normalize_advantage": True,
    "normalize_obs": False,
    "normalize_reward": False,
}
_PPO: Settings = {
    **_COMMON,
    "num_envs": 16,
    "rollout_length": 128,
    "epochs": 4,
    "baseline_epochs": None,
    "num_minibatches": 4,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "target_kl": math.inf,
    "schedule": BOTH_RATES,
    "std_from_obs": False,
    "squash": False,
}

# Found with `purerl sweep` over random settings, root key 0.
PRESETS: dict[tuple[str, str], Settings] = {
    ("CartPole-v1", "reinforce"): {
        **_COMMON,
        "rollout_length": None,
        "lookahead": None,
        "num_envs": 8,
        "total_steps": 1_000_000,
        "policy_learning_rate": 5e-3,
        "schedule": {"policy_learning_rate": "linear"},
    },
    ("CartPole-v1", "vpg"): {
        **_COMMON,
        "num_envs": 16,
        "rollout_length": 128,
        "total_steps": 300_000,
        "policy_learning_rate": 5e-3,
        "baseline_learning_rate": 1e-2,
        "baseline_epochs": 4,
        "schedule": BOTH_RATES,
    },
    ("CartPole-v1", "a2c"): {
        **_COMMON,
        "num_envs": 16,
        "rollout_length": 32,
        "total_steps": 300_000,
        "policy_learning_rate": 6e-4,
        "baseline_learning_rate": 5e-3,
        "baseline_epochs": 4,
        "gae_lambda": 0.92,
        "entropy_coef": 0.01,
        "schedule": BOTH_RATES,
    },
    ("CartPole-v1", "ppo"): {
        **_PPO,
        "total_steps": 300_000,
        "policy_learning_rate": 7e-4,
        "baseline_learning_rate": 6e-3,
        "entropy_coef": 0.01,
    },
    ("Acrobot-v1", "ppo"): {
        **_PPO,
        "total_steps": 1_000_000,
        "policy_learning_rate": 3e-3,
        "baseline_learning_rate": 2e-3,
        "entropy_coef": 0.005,
        "normalize_obs": True,
    },
    ("MountainCar-v0", "ppo"): {
        **_PPO,
        "rollout_length": 16,
        "total_steps": 1_000_000,
        "policy_learning_rate": 1.5e-3,
        "baseline_learning_rate": 2e-3,
        "entropy_coef": 0.01,
        "normalize_obs": True,
        "normalize_reward": True,
    },
    ("Pendulum-v1", "ppo"): {
        **_PPO,
        "total_steps": 2_000_000,
        "policy_learning_rate": 1.5e-3,
        "baseline_learning_rate": 1e-3,
        "discount": 0.98,
        "epochs": 5,
        "normalize_obs": True,
        "normalize_reward": True,
    },
    ("MountainCarContinuous-v0", "ppo"): {
        **_PPO,
        "total_steps": 1_000_000,
        "policy_learning_rate": 2e-3,
        "baseline_learning_rate": 8e-4,
        "discount": 0.999,
        "entropy_coef": 0.02,
        "normalize_obs": True,
        "normalize_reward": True,
    },
    ("Catch-bsuite", "ppo"): {
        **_PPO,
        "total_steps": 300_000,
        "policy_learning_rate": 2e-3,
        "baseline_learning_rate": 3e-3,
        "entropy_coef": 0.01,
    },
    ("FourRooms-misc", "ppo"): {
        **_PPO,
        "total_steps": 1_000_000,
        "policy_learning_rate": 2e-3,
        "baseline_learning_rate": 3e-3,
        "entropy_coef": 0.03,
        "normalize_obs": True,
    },
    ("PointRobot-misc", "ppo"): {
        **_PPO,
        "total_steps": 2_000_000,
        "policy_learning_rate": 1.5e-3,
        "baseline_learning_rate": 3e-3,
        "entropy_coef": 0.005,
        "normalize_obs": True,
    },
    ("Reacher-misc", "ppo"): {
        **_PPO,
        "total_steps": 1_000_000,
        "policy_learning_rate": 3e-3,
        "baseline_learning_rate": 2e-3,
        "entropy_coef": 0.005,
    },
    ("Breakout-MinAtar", "ppo"): {
        **_PPO,
        "num_envs": 64,
        "total_steps": 2_000_000,
        "policy_learning_rate": 3e-3,
        "baseline_learning_rate": 3e-3,
        "num_minibatches": 8,
        "entropy_coef": 0.01,
    },
}

TARGETS: dict[str, float] = {
    "CartPole-v1": 475.0,
    "Acrobot-v1": -80.0,
    "MountainCar-v0": -118.0,
    "Pendulum-v1": -130.0,
    "MountainCarContinuous-v0": 92.0,
    "Catch-bsuite": 1.0,
    "FourRooms-misc": 1.0,
    "Breakout-MinAtar": 28.0,
}
"""The greedy return that counts as solving an environment: what gymnax publishes for its own
agents, or the most that is possible; for CartPole, gym's 475."""

FACTORIES: dict[str, Any] = {"reinforce": reinforce, "vpg": vpg, "a2c": a2c, "ppo": ppo}


@shows_settings(otherwise=OF_PRESET)
def preset(env: str | Env, algo: str, **settings: Unpack[Settings]) -> Config:
    """A config tuned for an environment, or with the factory's defaults; `settings` replace either.

    **Raises:** `ValueError` for an unknown algorithm, and for all that the factory refuses.
    """
    if algo not in FACTORIES:
        raise ValueError(f"algo = {algo!r} is not known; use {' or '.join(FACTORIES)}.")
    tuned = PRESETS.get((env, algo), {}) if isinstance(env, str) else {}
    return make_config(env, algo, tuned, settings)
