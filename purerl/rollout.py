"""The first half of a step: act in the environments for `rollout_length` steps."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from purerl import envs
from purerl.compute.hoisting import scan_keys
from purerl.compute.mesh import spread_envs
from purerl.compute.platforms import recurrence
from purerl.config.config import Config
from purerl.envs import EnvStep
from purerl.types import Distribution, Policy, Transition


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

    obs, state = jax.vmap(reset)(spread_envs(jax.random.split(key, config.num_envs), 0))
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

    def act(key, standing):
        return act_once(key, policy, standing, config)

    def step(standing, keys):
        return jax.vmap(act)(keys, standing)

    keys = jax.random.split(key, (config.rollout_length, config.num_envs))
    carry, keys = spread_envs(carry, 0), spread_envs(keys, 1)
    (state, obs), acted = scan_keys(step, (carry.state, carry.obs), keys)
    # Outside the loop: what the next step does not need is a few large operations here.
    log_prob = jax.vmap(jax.vmap(lambda each: each.distribution.log_prob(each.action)))(acted)
    rollout = Transition(
        obs=acted.obs,
        action=acted.action,
        log_prob=log_prob,
        reward=acted.step.reward,
        terminated=acted.step.terminated,
        truncated=acted.step.truncated,
        next_obs=acted.step.next_obs,
    )
    return _count_episodes(carry, state, obs, spread_envs(rollout, 1))


class Acted(NamedTuple):
    """One step as the loop leaves it."""

    obs: Float[Array, "*batch_obs"]
    action: Shaped[Array, "*batch_action"]
    distribution: Distribution
    step: EnvStep


def act_once(
    key: Key[Array, ""], policy: Policy, standing: tuple[PyTree, Array], config: Config
) -> tuple[tuple[PyTree, Array], Acted]:
    """Sample one action in one environment and take the step."""
    state, obs = standing
    action_key, env_key = jax.random.split(key)
    distribution = policy(obs)
    action = distribution.sample(action_key)
    step = envs.step(env_key, config.env, state, action, config.env_params)
    left = step._replace(state=None, obs=None)
    return (step.state, step.obs), Acted(obs, action, distribution, left)


def _count_episodes(
    carry: EnvCarry, state: PyTree, obs: Array, rollout: Transition
) -> tuple[EnvCarry, Transition, Episodes]:
    """Go on with the sums of the episodes under way, and total those of the ones that ended."""
    done = rollout.terminated | rollout.truncated
    begins = jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]])
    # What an episode has got, and how long it has been going on, since the rollout began.
    per_step = jnp.stack([rollout.reward, jnp.ones_like(rollout.reward)], axis=1)
    goes_on = jnp.where(begins, 0.0, 1.0)[:, None]
    since = recurrence(per_step, jnp.broadcast_to(goes_on, per_step.shape), reverse=False)
    steps = since[:, 1].astype(jnp.int32)
    is_older = steps == jnp.arange(1, len(steps) + 1)[:, None]
    episode_return = since[:, 0] + jnp.where(is_older, carry.episode_return, 0)
    episode_length = steps + jnp.where(is_older, carry.episode_length, 0)
    episodes = Episodes(
        num_episodes=jnp.sum(done),
        total_return=jnp.sum(jnp.where(done, episode_return, 0)),
        total_length=jnp.sum(jnp.where(done, episode_length, 0)),
    )
    end = EnvCarry(
        state=state,
        obs=obs,
        episode_return=jnp.where(done[-1], 0, episode_return[-1]),
        episode_length=jnp.where(done[-1], 0, episode_length[-1]),
    )
    return spread_envs(end, 0), rollout, episodes
