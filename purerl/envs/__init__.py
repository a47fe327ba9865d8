"""Environments: by name or brought by the user, checked, and seen through one small interface."""

from purerl.envs.contract import EnvSpec, check_env, spec_in_force, time_limit
from purerl.envs.gymnax import DOWNLOADING
from purerl.envs.interface import EnvStep, action_space, reset, scale_action, step
from purerl.envs.names import env_names, made_by_name, make_env
from purerl.envs.spaces import Box, Discrete, Space

__all__ = [
    "DOWNLOADING",
    "Box",
    "Discrete",
    "EnvSpec",
    "EnvStep",
    "Space",
    "action_space",
    "check_env",
    "env_names",
    "made_by_name",
    "make_env",
    "reset",
    "scale_action",
    "spec_in_force",
    "step",
    "time_limit",
]
