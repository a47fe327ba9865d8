"""The first half of a step: act in the environments for `rollout_length` steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from purerl import envs
from purerl.ahead import scan_keys
from purerl.config import Config
from purerl.types import Policy, Transition


class EnvCarry(eqx.Module):
    """The environments between two steps, and what their running episodes have added up."""

    state: PyTree
    obs: Float[Array, "*batch_obs"]
    episode_return: Float[Array, "*batch"]
    episode_length: Int[Array, "*batch"]


class Episodes(eqx.Module):
    """Totals over the episodes that ended during a rollout."""

    num_episodes: Int[Array, "*batch"]
    total_return: Float[Array, "*batch"]
    total_length: Int[Array, "*batch"]


def reset_envs(key: Key[Array, ""], config: Config) -> EnvCarry:
    """Begin an episode in each of the `num_envs` environments."""

    def reset(key):
        return envs.reset(key, config.env, config.env_params)

    obs, state = jax.vmap(reset)(jax.random.split(key, config.num_envs))
    return EnvCarry(
        state=state,
        obs=obs,
        episode_return=jnp.zeros(config.num_envs),
        episode_length=jnp.zeros(config.num_envs, jnp.int32),
    )


def collect(
    key: Key[Array, ""], policy: Policy, carry: EnvCarry, config: Config
) -> tuple[EnvCarry, Transition, Episodes]:
    """Act for `rollout_length` steps in all environments.

    **Returns:** the environments as they are left, the rollout `[T, N]`, and the totals of the
    episodes that ended in it, as scalars.
    """

    def act(key, carry, episodes):
        return act_once(key, policy, carry, episodes, config)

    def step(carries, keys):
        carry, episodes, transition = jax.vmap(act)(keys, *carries)
        return (carry, episodes), transition

    keys = jax.random.split(key, (config.rollout_length, config.num_envs))
    none = Episodes(
        num_episodes=jnp.zeros(config.num_envs, jnp.int32),
        total_return=jnp.zeros(config.num_envs),
        total_length=jnp.zeros(config.num_envs, jnp.int32),
    )
    (carry, episodes), rollout = scan_keys(step, (carry, none), keys)
    return carry, rollout, jax.tree.map(jnp.sum, episodes)


def act_once(
    key: Key[Array, ""], policy: Policy, carry: EnvCarry, episodes: Episodes, config: Config
) -> tuple[EnvCarry, Episodes, Transition]:
    """Sample one action in one environment and take the step."""
    action_key, env_key = jax.random.split(key)
    distribution = policy(carry.obs)
    action = distribution.sample(action_key)
    step = envs.step(env_key, config.env, carry.state, action, config.env_params)
    done = step.terminated | step.truncated
    episode_return = carry.episode_return + step.reward
    episode_length = carry.episode_length + 1
    carry_on = EnvCarry(
        state=step.state,
        obs=step.obs,
        episode_return=jnp.where(done, 0, episode_return),
        episode_length=jnp.where(done, 0, episode_length),
    )
    episodes = Episodes(
        num_episodes=episodes.num_episodes + done,
        total_return=episodes.total_return + jnp.where(done, episode_return, 0),
        total_length=episodes.total_length + jnp.where(done, episode_length, 0),
    )
    transition = Transition(
        obs=carry.obs,
        action=action,
        log_prob=distribution.log_prob(action),
        reward=step.reward,
        terminated=step.terminated,
        truncated=step.truncated,
        next_obs=step.next_obs,
    )
    return carry_on, episodes, transition
