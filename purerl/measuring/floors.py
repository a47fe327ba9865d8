"""Programs that do a part of training, or less than it: what they reach bounds what it can."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from purerl import envs
from purerl.compute.hoisting import UNROLL
from purerl.compute.mesh import ALONE, Layout
from purerl.compute.platforms import by_platform
from purerl.config.config import Config
from purerl.distributions import Categorical, squashed
from purerl.envs import Box
from purerl.rollout import collect
from purerl.training import TrainState, advance, init


@dataclasses.dataclass(frozen=True)
class EnvSteps:
    """Rollouts of one agent with random actions, or with its first policy's; nothing is kept.

    A discrete action takes one uniform number, which is drawn before the loop as the keys are.
    """

    rollouts: int
    with_policy: bool

    def __call__(self, key: Key[Array, ""], config: Config) -> Any:
        """**Returns:** what must be computed: last observations and states, rewards summed."""
        init_key, run_key = jax.random.split(key)
        start = init(init_key, config)
        policy, space = start.learner.policy, config.env_spec.action_space
        shape = () if not isinstance(space, Box) else space.shape

        def act(key, obs, uniform):
            if not self.with_policy:
                if isinstance(space, Box):
                    return 2 * uniform - 1
                return (uniform * space.n).astype(jnp.int32)
            distribution = policy(obs)
            if not isinstance(distribution, Categorical):
                return squashed(distribution, distribution.sample(key))
            below = jnp.cumsum(jax.nn.softmax(distribution.logits))[:-1]
            return jnp.sum(below < uniform).astype(jnp.int32)

        def step_one(key, obs, state, uniform):
            action_key, env_key = (key, key) if shape == () else jax.random.split(key)
            action = act(action_key, obs, uniform)
            step = envs.step(env_key, config.env, state, action, config.env_params)
            return step.obs, step.state, step.reward

        def step(carry, drawn):
            keys, uniform = drawn
            obs, state, total = carry
            obs, state, reward = jax.vmap(step_one)(keys, obs, state, uniform)
            return (obs, state, total + reward), None

        def rollout(carry, key):
            env_key, action_key = jax.random.split(key)
            size = (config.rollout_length, config.num_envs)
            keys = jax.random.split(env_key, size)
            uniform = jax.random.uniform(action_key, (*size, *shape))

            def loop(unroll):  # as `collect` has it
                return lambda *args: jax.lax.scan(step, args[0], args[1:], unroll=unroll)[0]

            unrolled = loop(min(UNROLL, config.rollout_length))
            return by_platform(carry, keys, uniform, cpu=loop(1), default=unrolled), None

        carry = (start.envs.obs, start.envs.state, jnp.zeros(config.num_envs))
        return jax.lax.scan(rollout, carry, jax.random.split(run_key, self.rollouts))[0]


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """purerl's own rollouts of one agent: the last is returned, so that each is made whole."""

    rollouts: int

    def __call__(self, state: TrainState, config: Config) -> Any:
        def once(carry, key):
            envs, _ = carry
            envs, rollout, _ = collect(key, state.learner.policy, envs, config)
            return (envs, rollout), None

        shapes = jax.eval_shape(
            lambda: collect(state.key, state.learner.policy, state.envs, config)[1]
        )
        none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        keys = jax.random.split(state.key, self.rollouts)
        return jax.lax.scan(once, (state.envs, none), keys)[0]


@dataclasses.dataclass(frozen=True)
class Updates:
    """Training steps of one agent."""

    updates: int

    def __call__(self, state: TrainState, config: Config, layout: Layout = ALONE) -> Any:
        return advance(state, config, self.updates, layout=layout)
