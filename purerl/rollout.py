"""The first half of a step: act in the environments for `rollout_length` steps."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from purerl import envs
from purerl.compute.derivatives import mean
from purerl.compute.draws import flat_draws
from purerl.compute.hoisting import scan_hoisting_draws
from purerl.compute.mesh import ALONE, Layout, constrain_envs
from purerl.compute.platforms import linear_recurrence
from purerl.compute.trees import Packed, Sums
from purerl.config.config import Config
from purerl.distributions import squashed
from purerl.envs import EnvStep
from purerl.types import Distribution, Metrics, Policy, Transition


class EnvCarry(eqx.Module):
    """The environments between two steps, with the return and length of their running episodes."""

    state: PyTree
    obs: Float[Array, "*batch_obs"]
    episode_return: Float[Array, "*batch"]
    episode_length: Int[Array, "*batch"]


class EpisodeTotals(eqx.Module):
    """Totals over the episodes that ended during a rollout."""

    num_episodes: Int[Array, "*batch"]
    total_return: Float[Array, "*batch"]
    total_length: Int[Array, "*batch"]


def reset_envs(key: Key[Array, ""], config: Config, layout: Layout = ALONE) -> EnvCarry:
    """Begin an episode in each of the `num_envs` environments."""

    def reset(key):
        return envs.reset(key, config.env, config.env_params)

    keys = constrain_envs(jax.random.split(key, config.num_envs), 0, layout)
    obs, state = jax.vmap(reset)(keys)
    return EnvCarry(
        state=state,
        obs=obs,
        episode_return=jnp.zeros(config.num_envs),
        episode_length=jnp.zeros(config.num_envs, jnp.int32),
    )


def collect(
    key: Key[Array, ""], policy: Policy, carry: EnvCarry, config: Config, layout: Layout = ALONE
) -> tuple[EnvCarry, Transition, EpisodeTotals]:
    """Act for `rollout_length` steps in all environments.

    **Returns:** the environments after the last step, the rollout `[T, N]`, and the totals of the
    episodes that ended in it, as scalars.
    """

    def act_in_one(key, state, obs):
        action_key, env_key = jax.random.split(key)
        raw = act(action_key, env_key, policy, state, obs, config)
        # Not stacked: what is carried to the next step.
        stacked = raw._replace(step=raw.step._replace(state=None, obs=None, info=None))
        return (raw.step.state, raw.step.obs), stacked

    def step(state_and_obs, keys):
        return jax.vmap(act_in_one)(keys, *state_and_obs)

    shape = (config.rollout_length, config.num_envs)
    keys = flat_draws(lambda key: jax.random.split(key, shape), layout)(key)
    carry, keys = constrain_envs(carry, 0, layout), constrain_envs(keys, 1, layout)
    (state, obs), raw = scan_hoisting_draws(step, (carry.state, carry.obs), keys, layout)
    # Outside the loop, as no step needs it: here it is a few large operations.
    log_prob = jax.vmap(jax.vmap(lambda raw: raw.distribution.log_prob(raw.action)))(raw)
    following = jnp.concatenate([raw.obs[1:], obs[None]])
    episode_ends = jnp.logical_or(raw.step.terminated, raw.step.truncated)
    is_end = episode_ends.reshape(*episode_ends.shape, *[1] * (raw.obs.ndim - 2))
    next_carry, age, episodes = _track_episodes(carry, state, obs, raw.step)
    next_carry = constrain_envs(next_carry, 0, layout)
    rollout = Transition(
        obs=raw.obs,
        action=raw.action,
        log_prob=log_prob,
        reward=raw.step.reward,
        terminated=raw.step.terminated,
        truncated=raw.step.truncated,
        next_obs=jnp.where(is_end, raw.step.final_obs, following),
        age=age,
    )
    return next_carry, constrain_envs(rollout, 1, layout), episodes


class RawTransition(NamedTuple):
    """One step of one environment, with the distribution of its action, as it was sampled."""

    obs: Float[Array, "*batch_obs"]
    action: Shaped[Array, "*batch_action"]
    distribution: Distribution
    step: EnvStep


def act(
    action_key: Key[Array, ""],
    env_key: Key[Array, ""],
    policy: Policy,
    state: PyTree,
    obs: Float[Array, "*obs"],
    config: Config,
    *,
    greedy: bool = False,
) -> RawTransition:
    """Choose one action in one environment and take the step. All that acts goes through here.

    **Arguments:** `greedy` takes the distribution's mode, else the action is sampled.
    """
    distribution = policy(obs)
    action = distribution.mode() if greedy else distribution.sample(action_key)
    in_units = squashed(distribution, action)
    step = envs.step(env_key, config.env, state, in_units, config.env_params)
    return RawTransition(obs, action, distribution, step)


def _track_episodes(
    carry: EnvCarry, state: PyTree, obs: Array, steps: EnvStep
) -> tuple[EnvCarry, Int[Array, "T N"], EpisodeTotals]:
    """Continue the sums of running episodes, and total those of the episodes that ended.

    **Returns:** the environments after the last step, the age of each step, and the totals.
    """
    episode_ends = steps.terminated | steps.truncated
    episode_starts = jnp.concatenate([jnp.zeros_like(episode_ends[:1]), episode_ends[:-1]])
    # The reward and the steps of each episode so far, within this rollout.
    per_step = jnp.stack([steps.reward, jnp.ones_like(steps.reward)], axis=1)
    decay = jnp.where(episode_starts, 0.0, 1.0)[:, None]
    sums = linear_recurrence(per_step, jnp.broadcast_to(decay, per_step.shape), reverse=False)
    counts = sums[:, 1].astype(jnp.int32)
    is_older = counts == jnp.arange(1, len(counts) + 1)[:, None]  # than the rollout
    episode_return = sums[:, 0] + jnp.where(is_older, carry.episode_return, 0)
    if steps.episode_return is not None:
        episode_return = steps.episode_return
    episode_length = counts + jnp.where(is_older, carry.episode_length, 0)
    episodes = EpisodeTotals(
        num_episodes=jnp.sum(episode_ends),
        total_return=jnp.sum(jnp.where(episode_ends, episode_return, 0)),
        total_length=jnp.sum(jnp.where(episode_ends, episode_length, 0)),
    )
    next_carry = EnvCarry(
        state=state,
        obs=obs,
        episode_return=jnp.where(episode_ends[-1], 0, episode_return[-1]),
        episode_length=jnp.where(episode_ends[-1], 0, episode_length[-1]),
    )
    return next_carry, episode_length - 1, episodes


def episode_metrics(episodes: EpisodeTotals) -> dict[str, Array]:
    """Means over the episodes that ended: NaN, not 0, where none did."""
    count = episodes.num_episodes
    return {
        "episode_return": mean(episodes.total_return, count),
        "episode_length": mean(episodes.total_length.astype(episodes.total_return.dtype), count),
        "num_episodes": count,
    }


def sum_updates(metrics: Packed) -> Sums:
    """One record of several updates `[updates]`: episodes weighted by count, the rest averaged.

    A mean is over the updates in which the metric is defined.
    """
    count = metrics.others.num_episodes
    names = [field.name for field in dataclasses.fields(Metrics) if field.name != "num_episodes"]
    is_of_episodes = np.array([name.startswith("episode_") for name in names])
    weight = jnp.where(is_of_episodes, count[:, None], ~jnp.isnan(metrics.floats))
    total = jnp.sum(jnp.where(weight > 0, metrics.floats * weight, 0), axis=0)
    others = jax.tree.map(jnp.sum, metrics.others)
    return Sums(Packed(total, others, metrics.treedef), jnp.sum(weight, axis=0))
