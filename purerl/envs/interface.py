"""An environment as the rest of the library sees it: named results, with default floats."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from purerl.envs.spaces import Box, Space, as_space
from purerl.types import Env, default_float


class EnvStep(NamedTuple):
    """The result of one step. `obs` is for the next step, after a reset where an episode ended."""

    obs: Float[Array, "..."]
    state: PyTree
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    final_obs: Float[Array, "..."]
    """Where the episode ended, the observation before the reset; elsewhere it means nothing."""
    episode_return: Float[Array, ""] | None
    """What the environment itself reports as the return of the episode so far; None without."""
    info: dict[str, Any] | None
    """As the environment gives it; a rollout does not keep it."""

    @property
    def next_obs(self) -> Float[Array, "..."]:
        """The true successor: `obs`, or where the episode ended `final_obs`."""
        return jnp.where(self.terminated | self.truncated, self.final_obs, self.obs)


# A static environment and equal shapes are traced once in a process, by whatever asks first.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def traced_reset(key: Key[Array, ""], env: Env, params: PyTree) -> Any:
    """What the environment's own `reset` returns."""
    return env.reset(key, params)


@functools.partial(jax.jit, static_argnums=1, inline=True)
def traced_step(key: Key[Array, ""], env: Env, state: PyTree, action: Any, params: PyTree) -> Any:
    """What the environment's own `step` returns."""
    return env.step(key, state, action, params)


def reset(key: Key[Array, ""], env: Env, params: PyTree) -> tuple[Float[Array, "..."], PyTree]:
    """Begin an episode: the first observation, and the environment's state."""
    obs, state = traced_reset(key, env, params)
    return _float(obs), state


def step(key: Key[Array, ""], env: Env, state: PyTree, action: Any, params: PyTree) -> EnvStep:
    """Take one step, through the environment's public `step`, which resets by itself.

    The action is in units of the action space, squashed where its distribution squashes. It is
    brought to the bounds here alone: the stored action and its log-probability are those of the
    sample.
    """
    action = scale_action(action, action_space(env, params))
    obs, state, reward, terminated, truncated, info = traced_step(key, env, state, action, params)
    return EnvStep(
        obs=_float(obs),
        state=state,
        reward=_float(reward),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        final_obs=_float(info["final_observation"]),
        episode_return=_float(info["episode_return"]) if "episode_return" in info else None,
        info=info,
    )


def action_space(env: Env, params: PyTree) -> Space:
    """The action space of these parameters. The bounds of a box may be traced."""
    with jax.ensure_compile_time_eval():  # bounds may be jnp arrays, and this may be traced
        space = as_space(env.action_space(getattr(env, "default_params", None)))
    return as_space(env.action_space(params)) if isinstance(space, Box) else space


def scale_action(action: Array, space: Space) -> Array:
    """An action of a policy as the environment takes it.

    Each component of a box counts in units: −1 … 1 is `low` … `high`; where only one bound is
    finite, it is −1 or 1, and the unit 1; where none is, nothing changes. What lies beyond a bound
    is clipped to it.
    """
    if not isinstance(space, Box):
        return action
    dtype = jnp.promote_types(action.dtype, default_float())
    low, high = (jnp.broadcast_to(x, space.shape).astype(dtype) for x in (space.low, space.high))
    has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
    # Of an infinite bound, 0: else a derivative by the bounds would be NaN.
    bottom, top = jnp.where(has_low, low, 0), jnp.where(has_high, high, 0)
    half_range = jnp.where(has_low & has_high, top / 2 - bottom / 2, 1)
    one_sided = bottom + top + has_low - has_high
    center = jnp.where(has_low & has_high, bottom / 2 + top / 2, one_sided)
    return jnp.clip(center + half_range * action, low, high)


def _float(x: Any) -> Float[Array, "..."]:
    return jnp.asarray(x).astype(default_float())
