"""The environment's contract, checked by shapes alone: nothing runs, nothing compiles."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from purerl.envs.spaces import Box, Discrete, Space, as_space


class EnvSpec(NamedTuple):
    """What the rest of the library needs to know of an environment."""

    obs_space: Space
    action_space: Space
    max_steps: int | None
    """The time limit of the default parameters; None where they name none."""


def check_env(env: Any, params: PyTree) -> EnvSpec:
    """Check an environment against the contract and read its spaces.

    Shapes come from what `reset` and `step` return, not from what is declared.

    **Raises:** `ValueError`, in one line, where the environment breaks the contract.
    """
    name = type(env).__name__
    for method in ("reset", "step", "action_space", "observation_space"):
        if not callable(getattr(env, method, None)):
            raise ValueError(f"{name} has no method {method}; see purerl.Env for what it needs.")
    try:
        hash(env)
    except TypeError:
        raise ValueError(
            f"{name} is not hashable; make it a frozen dataclass or an object without __eq__."
        ) from None
    # Spaces belong to the default parameters: those of a sweep are traced.
    with jax.ensure_compile_time_eval():  # bounds may be jnp arrays, and this may be traced
        default_params = getattr(env, "default_params", None)
        max_steps = time_limit(default_params)
        obs_space = _space(name, "observation_space", env, default_params)
        action_space = _space(name, "action_space", env, default_params)

    key = jax.eval_shape(lambda: jax.random.key(0))
    obs, state = _call(name, "reset", env.reset, ("obs", "state"), key, params)
    action = jax.ShapeDtypeStruct(
        action_space.shape, np.int32 if isinstance(action_space, Discrete) else np.float32
    )
    after = _call(name, "step", env.step, STEP, key, state, action, params)
    next_obs, next_state, reward, terminated, truncated, info = after

    _check_obs(name, "reset", obs)
    _same(name, "the observation", obs, next_obs)
    _same(name, "the state", state, next_state)
    if _shape(reward) != () or not jnp.issubdtype(reward.dtype, jnp.number):
        raise ValueError(f"{name}.step: reward is {_show(reward)}; return one number.")
    for flag, value in (("terminated", terminated), ("truncated", truncated)):
        if _shape(value) != () or value.dtype != bool:
            raise ValueError(f"{name}.step: {flag} is {_show(value)}; return one boolean.")
    if not isinstance(info, dict) or "final_observation" not in info:
        raise ValueError(
            f"{name}.step: info has no 'final_observation'; put the observation from before the "
            f"reset there."
        )
    _same(name, "info['final_observation']", obs, info["final_observation"])
    if isinstance(obs_space, Box):
        obs_space = Box(obs_space.low, obs_space.high, tuple(obs.shape))
    elif obs.shape != ():  # declared discrete, but it returns an array
        obs_space = Box(-np.inf, np.inf, tuple(obs.shape))
    return EnvSpec(obs_space, action_space, max_steps)


STEP = ("obs", "state", "reward", "terminated", "truncated", "info")


def _call(name: str, method: str, function: Any, expected: tuple[str, ...], *args: Any) -> tuple:
    try:
        out = jax.eval_shape(function, *args)
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise ValueError(
            f"{name}.{method} could not be traced: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(out, tuple | list) or len(out) != len(expected):
        count = len(out) if isinstance(out, tuple | list) else 1
        raise ValueError(
            f"{name}.{method} returned {count} values; return {len(expected)}: "
            f"{', '.join(expected)}."
        )
    return tuple(out)


def _space(name: str, method: str, env: Any, default_params: PyTree) -> Space:
    try:
        return as_space(getattr(env, method)(default_params))
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise ValueError(
            f"{name}.{method} does not give a space: {type(error).__name__}: {reason}"
        ) from error


def _check_obs(name: str, method: str, obs: Any) -> None:
    if not isinstance(obs, jax.ShapeDtypeStruct) or not (
        jnp.issubdtype(obs.dtype, jnp.number) or obs.dtype == bool
    ):
        raise ValueError(f"{name}.{method}: obs is {_show(obs)}; return one array of numbers.")


def _same(name: str, what: str, before: PyTree, after: PyTree) -> None:
    """Refuse a structure, shape or dtype that is one thing after reset and another after step."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(
            f"{name}: {what} has the structure {jax.tree.structure(before)} after reset but "
            f"{jax.tree.structure(after)} after step; return the same from both."
        )
    pairs = zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, old), new in pairs:
        if old.shape != new.shape or old.dtype != new.dtype:
            raise ValueError(
                f"{name}: {what}{jax.tree_util.keystr(path)} is {_show(old)} after reset but "
                f"{_show(new)} after step; return the same from both."
            )


def time_limit(params: PyTree) -> int | None:
    """The steps after which parameters truncate an episode, the longest of a sweep's.

    None where they name no limit, an infinite one, or one that is traced.
    """
    limit = getattr(params, "max_steps_in_episode", None)
    if limit is None or isinstance(limit, Tracer) or not np.all(np.isfinite(limit)):
        return None
    return int(np.max(limit))


def _shape(x: Any) -> tuple[int, ...] | None:
    """The shape of one array; None for anything else, such as a dict or None."""
    return getattr(x, "shape", None)


def _show(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else repr(x)
