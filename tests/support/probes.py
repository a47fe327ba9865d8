"""Small environments with known answers. None is a gymnax class: any hashable object trains."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

import purerl


class ProbeState(NamedTuple):
    obs: jax.Array
    time: jax.Array


class ProbeParams(NamedTuple):
    max_steps_in_episode: float = 5
    reward_scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Probe:
    """One observation of ±1; `length` steps to a termination, unless a time limit comes first.

    - `reward`: "constant" pays 1, "obs" pays the observation, "action" pays 1 for action 1,
      "match" pays 1 where the action is 1 exactly when the observation is +1, "last" pays 1 on
      the last step alone.
    - `length`: steps to a termination; 0 never terminates.
    - `limit`: whether `max_steps_in_episode` truncates.
    - `clock`: whether the observation is the time, instead of a sign drawn at every reset.
    """

    reward: str = "constant"
    length: int = 1
    limit: bool = False
    clock: bool = False

    @property
    def default_params(self):
        return ProbeParams()

    def observation_space(self, params):
        return purerl.Box(-1.0, 1.0, (1,))

    def action_space(self, params):
        return purerl.Discrete(2)

    def reset(self, key, params):
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)[None]
        obs = jnp.zeros(1) if self.clock else sign
        return obs, ProbeState(obs, jnp.int32(0))

    def step(self, key, state, action, params):
        time = state.time + 1
        terminated = (time >= self.length) if self.length else jnp.array(False)
        truncated = (time >= params.max_steps_in_episode) if self.limit else jnp.array(False)
        reward = {
            "constant": jnp.float32(1),
            "obs": state.obs[0],
            "action": action.astype(jnp.float32),
            "match": ((action == 1) == (state.obs[0] > 0)).astype(jnp.float32),
            "last": terminated.astype(jnp.float32),
        }[self.reward] * params.reward_scale
        final_obs = time.astype(jnp.float32)[None] if self.clock else state.obs
        reset_obs, reset_state = self.reset(key, params)
        done = terminated | truncated
        obs = jnp.where(done, reset_obs, final_obs)
        state = ProbeState(obs, jnp.where(done, reset_state.time, time))
        return obs, state, reward, terminated, truncated, {"final_observation": final_obs}


@dataclasses.dataclass(frozen=True)
class CutShort:
    """Episodes of one step, from 0 or 1 with equal chance: V(1) = 1 and V(0) = discount.

    From 1 the step pays 1 and terminates. From 0 it pays nothing and is truncated on its way to 1,
    so that its value is only that of the final observation.
    """

    def observation_space(self, params):
        return purerl.Box(0.0, 1.0, (1,))

    def action_space(self, params):
        return purerl.Discrete(2)

    def reset(self, key, params):
        obs = jax.random.bernoulli(key).astype(jnp.float32)[None]
        return obs, obs

    def step(self, key, state, action, params):
        obs, reset_state = self.reset(key, params)
        from_one = state[0] > 0
        info = {"final_observation": jnp.ones(1)}
        return obs, reset_state, state[0], from_one, ~from_one, info


@dataclasses.dataclass(frozen=True)
class Sick(Probe):
    """A probe whose observation is NaN in the agents for which a draw at a reset is high."""

    reward: str = "constant"
    length: int = 4
    threshold: float = 0.995

    def reset(self, key, params):
        obs, state = super().reset(key, params)
        return jnp.where(jax.random.uniform(key) > self.threshold, jnp.nan, obs), state


class BreakingParams(NamedTuple):
    """What breaks in `Breaking` (an index into `PARTS`), at which age, in which share of all."""

    what: int = 0
    age: float = 12
    share: float = 1.0


class BreakingState(NamedTuple):
    age: jax.Array  # in steps since the agent began
    luck: jax.Array
    extra: jax.Array


@dataclasses.dataclass(frozen=True)
class Breaking:
    """Episodes of two steps that pay 1 for action 1, until something is not finite for one step."""

    PARTS = ("reward", "infinite reward", "observation", "environment state")

    default_params = BreakingParams()

    def observation_space(self, params):
        return purerl.Box(-1.0, 1.0, (1,))

    def action_space(self, params):
        return purerl.Discrete(2)

    def reset(self, key, params):
        luck = jax.random.uniform(key)
        return jnp.ones(1), BreakingState(jnp.int32(0), luck, jnp.float32(0))

    def step(self, key, state, action, params):
        breaks = (state.age == params.age) & (state.luck < params.share)

        def broken(part, value, by=jnp.nan):
            return jnp.where(breaks & (params.what == self.PARTS.index(part)), by, value)

        reward = broken("infinite reward", action.astype(jnp.float32), by=jnp.inf)
        obs = broken("observation", jnp.ones(1))
        after = BreakingState(state.age + 1, state.luck, broken("environment state", state.extra))
        info = {"final_observation": obs}
        return obs, after, broken("reward", reward), state.age % 2 == 1, jnp.array(False), info


@dataclasses.dataclass(frozen=True)
class Unborn(Probe):
    """A probe whose first observation is NaN."""

    def reset(self, key, params):
        obs, state = super().reset(key, params)
        return jnp.full_like(obs, jnp.nan), state
