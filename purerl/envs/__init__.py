"""Environments: by name or brought by the user, checked, and seen through one small interface."""

from purerl.envs.contract import EnvSpec, check_env, time_limit
from purerl.envs.interface import EnvStep, reset, step
from purerl.envs.names import env_names, make_env
from purerl.envs.spaces import Box, Discrete, Space

__all__ = [
    "Box",
    "Discrete",
    "EnvSpec",
    "EnvStep",
    "Space",
    "check_env",
    "env_names",
    "make_env",
    "reset",
    "step",
    "time_limit",
]
