"""The environment's contract, checked by shapes alone: nothing runs, nothing compiles."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from purerl.envs.interface import action_space, traced_reset, traced_step
from purerl.envs.spaces import Box, Discrete, Space, as_space
from purerl.types import default_float

STEP_OUTPUTS = ("obs", "state", "reward", "terminated", "truncated", "info")


class EnvSpec(NamedTuple):
    """What the rest of the library needs to know about an environment, by its default parameters.

    A network is built for these, as structure must not depend on parameters that may be traced.
    """

    obs_space: Space
    action_space: Space
    """That of the policy: a box is in units (`Box.in_units`)."""
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
    declared = _declared_spec(name, env)
    key = jax.eval_shape(lambda: jax.random.key(0))
    obs, state = _trace(name, "reset", traced_reset, ("obs", "state"), key, env, params)
    _check_bounds(name, env, params)
    dtype = np.int32 if isinstance(declared.action_space, Discrete) else default_float()
    action = jax.ShapeDtypeStruct(declared.action_space.shape, dtype)
    at_step = _trace(name, "step", traced_step, STEP_OUTPUTS, key, env, state, action, params)
    _check_outputs(name, obs, state, at_step)
    space = declared.obs_space
    if isinstance(space, Box):
        space = Box(space.low, space.high, obs.shape)
    elif obs.shape != ():  # declared discrete, but it returns an array
        space = Box(-np.inf, np.inf, obs.shape)
    return declared._replace(obs_space=space)


def _declared_spec(name: str, env: Any) -> EnvSpec:
    """The spaces that an environment declares.

    They are those of the default parameters: parameters of a sweep are traced.
    """
    with jax.ensure_compile_time_eval():  # bounds may be jnp arrays, and this may be traced
        params = getattr(env, "default_params", None)
        max_steps = time_limit(params)
        return EnvSpec(*_spaces(name, env, params), max_steps)


def _spaces(name: str, env: Any, params: PyTree) -> tuple[Space, Space]:
    """The spaces of observations, and of actions in units, under these parameters."""

    def read(method):
        try:
            return as_space(getattr(env, method)(params))
        except Exception as error:
            raise ValueError(f"{name}.{method} does not give a space: {one_line(error)}") from error

    obs_space, actions = read("observation_space"), read("action_space")
    return obs_space, actions.in_units if isinstance(actions, Box) else actions


def _check_bounds(name: str, env: Any, params: PyTree) -> None:
    """Refuse bounds of actions that cannot be computed from traced parameters."""

    def bounds(params):
        space = action_space(env, params)
        return isinstance(space, Box) and (space.low, space.high)

    try:
        jax.eval_shape(bounds, params)
    except Exception as error:
        raise ValueError(
            f"{name}.action_space could not be traced: {one_line(error)}; compute bounds from "
            f"parameters with jax.numpy."
        ) from error


def spec_in_force(env: Any, params: PyTree, spec: EnvSpec) -> EnvSpec:
    """The spec under these parameters, by value; `spec` where they are traced or a sweep's.

    **Raises:** `ValueError` where they change more of a space than its bounds, or these cannot be.
    """
    with jax.ensure_compile_time_eval():
        default_params = getattr(env, "default_params", None)
        leaves, default_leaves = jax.tree.leaves(params), jax.tree.leaves(default_params)
        if (
            any(isinstance(leaf, Tracer) for leaf in leaves)
            or jax.tree.structure(params) != jax.tree.structure(default_params)
            or list(map(np.shape, leaves)) != list(map(np.shape, default_leaves))
        ):
            return spec
        default_spaces = _spaces(type(env).__name__, env, default_params)
        spaces = _spaces(type(env).__name__, env, params)
    for method, default, space in zip(
        ("observation_space", "action_space"), default_spaces, spaces, strict=True
    ):
        if str(space) != str(default):  # which says all but the bounds
            raise ValueError(
                f"env_params make {method} {space}, but it is {default} by default; they may only "
                f"move its bounds: give an environment whose default parameters have that space."
            )
    return spec._replace(action_space=spaces[1])


def _trace(name: str, method: str, function: Any, expected: tuple[str, ...], *args: Any) -> tuple:
    try:
        out = function.eval_shape(*args)
    except Exception as error:
        raise ValueError(f"{name}.{method} could not be traced: {one_line(error)}") from error
    values = tuple(out) if isinstance(out, tuple | list) else (out,)
    if len(values) != len(expected):
        raise ValueError(
            f"{name}.{method} returned {len(values)} values; return {len(expected)}: "
            f"{', '.join(expected)}."
        )
    return values


def _check_outputs(name: str, obs: Any, state: PyTree, after_step: tuple) -> None:
    """Check the observation that `reset` returns, and what `step` returns against it."""
    if not isinstance(obs, jax.ShapeDtypeStruct) or not (
        jnp.issubdtype(obs.dtype, jnp.integer)
        or jnp.issubdtype(obs.dtype, jnp.floating)
        or obs.dtype == bool
    ):
        raise ValueError(f"{name}.reset: obs is {_show(obs)}; return one array of real numbers.")
    next_obs, next_state, reward, terminated, truncated, info = after_step
    _require_same_structure(name, "the observation", obs, next_obs)
    _require_same_structure(name, "the state", state, next_state)
    if getattr(reward, "shape", None) != () or not (
        jnp.issubdtype(reward.dtype, jnp.integer) or jnp.issubdtype(reward.dtype, jnp.floating)
    ):
        raise ValueError(f"{name}.step: reward is {_show(reward)}; return one real number.")
    for flag, value in (("terminated", terminated), ("truncated", truncated)):
        if getattr(value, "shape", None) != () or value.dtype != bool:
            raise ValueError(f"{name}.step: {flag} is {_show(value)}; return one boolean.")
    if not isinstance(info, dict) or "final_observation" not in info:
        raise ValueError(
            f"{name}.step: info has no 'final_observation'; put the observation from before the "
            f"reset there."
        )
    _require_same_structure(name, "info['final_observation']", obs, info["final_observation"])
    episode_return = info.get("episode_return", reward)
    if getattr(episode_return, "shape", None) != () or not (
        jnp.issubdtype(episode_return.dtype, jnp.integer)
        or jnp.issubdtype(episode_return.dtype, jnp.floating)
    ):
        raise ValueError(
            f"{name}.step: info['episode_return'] is {_show(episode_return)}; put one real number "
            f"there, the return of the episode so far, or leave it out."
        )


def _require_same_structure(name: str, part: str, at_reset: PyTree, at_step: PyTree) -> None:
    """Refuse a structure, shape or dtype that differs between `reset` and `step`."""
    if jax.tree.structure(at_reset) != jax.tree.structure(at_step):
        raise ValueError(
            f"{name}: {part} has the structure {jax.tree.structure(at_reset)} after reset but "
            f"{jax.tree.structure(at_step)} after step; return the same from both."
        )
    leaves = zip(jax.tree.leaves_with_path(at_reset), jax.tree.leaves(at_step), strict=True)
    for (path, old), new in leaves:
        if old.shape != new.shape or old.dtype != new.dtype:
            raise ValueError(
                f"{name}: {part}{jax.tree_util.keystr(path)} is {_show(old)} after reset but "
                f"{_show(new)} after step; return the same from both."
            )


def time_limit(params: PyTree) -> int | None:
    """The steps after which parameters truncate an episode; the most of them in a sweep.

    None where there is no limit, or it is infinite or traced.
    """
    limit = getattr(params, "max_steps_in_episode", None)
    if limit is None or isinstance(limit, Tracer) or not np.all(np.isfinite(limit)):
        return None
    return int(np.max(limit))


def one_line(error: Exception) -> str:
    """The type of an error, and the first line of its message."""
    line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {line}"


def _show(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else repr(x)
