"""Settings tuned for an environment: what the command line trains with unless told otherwise."""

from typing import Any, Unpack

from purerl import factories
from purerl.config import Config
from purerl.factories import Settings
from purerl.types import Env

PRESETS: dict[tuple[str, str], Settings] = {
    ("CartPole-v1", "vpg"): {
        "num_envs": 16,
        "rollout_length": 128,
        "total_steps": 300_000,
        "policy_learning_rate": 3e-3,
        "baseline_learning_rate": 1e-2,
        "baseline_epochs": 3,
        "max_grad_norm": 10.0,
    },
    ("CartPole-v1", "reinforce"): {
        "num_envs": 16,
        "rollout_length": 512,
        "total_steps": 1_000_000,
        "max_grad_norm": 10.0,
    },
}

TARGETS: dict[str, float] = {"CartPole-v1": 475.0}
"""The greedy return at which an environment counts as solved."""

FACTORIES: dict[str, Any] = {"reinforce": factories.reinforce, "vpg": factories.vpg}


def preset(env: str | Env, algo: str, **settings: Unpack[Settings]) -> Config:
    """The settings tuned for an environment, or the factory's own where none are; all can be set.

    **Raises:** `ValueError` for an algorithm that there is not, and all that the factory refuses.
    """
    if algo not in FACTORIES:
        raise ValueError(f"algo = {algo!r} is not known; use {' or '.join(FACTORIES)}.")
    tuned = PRESETS.get((env, algo), {}) if isinstance(env, str) else {}
    return FACTORIES[algo](env, **{**tuned, **settings})
