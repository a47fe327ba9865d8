"""Running statistics, with which observations are normalised and rewards are scaled."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from purerl.compute.platforms import linear_recurrence
from purerl.types import Transition

CLIP = 10.0  # normalised values are clipped to ± this


class RunningStats(eqx.Module):
    """The count, mean and summed squared deviation of all that was seen, element by element."""

    count: Float[Array, "*batch"]
    mean: Float[Array, "*batch_x"]
    squared_deviations: Float[Array, "*batch_x"]

    @property
    def std(self) -> Float[Array, "*batch_x"]:
        """The standard deviation; 1 before anything was seen."""
        variance = self.squared_deviations / jnp.maximum(self.count, 1)
        return jnp.where(self.count > 0, jnp.sqrt(variance + 1e-8), 1)

    def normalize(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """`(x − mean) / std`, clipped to ±10."""
        return jnp.clip((x - self.mean) / self.std, -CLIP, CLIP)


def initial_stats(shape: tuple[int, ...]) -> RunningStats:
    """Statistics before any data: they normalise nothing, and only clip."""
    return RunningStats(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))


def update_stats(stats: RunningStats, x: Float[Array, "*batch_x"]) -> RunningStats:
    """Add x, a batch with any leading axes, to the statistics.

    Chan et al. (1979), "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    leading = tuple(range(x.ndim - stats.mean.ndim))
    batch_count = x.size // max(stats.mean.size, 1)
    batch_mean = jnp.mean(x, leading)
    count = stats.count + batch_count
    shift = batch_mean - stats.mean
    return RunningStats(
        count=count,
        mean=stats.mean + shift * (batch_count / count),
        squared_deviations=stats.squared_deviations
        + jnp.sum((x - batch_mean) ** 2, leading)
        + shift**2 * (stats.count * (batch_count / count)),
    )


class RewardNormalizer(eqx.Module):
    """The statistics of the discounted return so far in an episode, whose std divides rewards."""

    discounted_return: Float[Array, "*batch"]
    stats: RunningStats


def initial_reward_normalizer(num_envs: int) -> RewardNormalizer:
    """The normalizer before the first rollout."""
    return RewardNormalizer(jnp.zeros(num_envs), initial_stats(()))


def normalize_rewards(
    normalizer: RewardNormalizer, rollout: Transition, discount: Float[Array, ""]
) -> tuple[RewardNormalizer, Float[Array, "T N"]]:
    """Divide rewards by the standard deviation of `x_t = reward_t + discount · x_{t−1}`.

    x starts anew with each episode. The statistics cover all rollouts of the agent up to and with
    this one, over all environments. The scaled rewards are clipped to ±10.
    """
    episode_ends = rollout.terminated | rollout.truncated
    episode_starts = jnp.concatenate([jnp.zeros_like(episode_ends[:1]), episode_ends[:-1]])
    term = rollout.reward.at[0].add(discount * normalizer.discounted_return)
    decay = jnp.where(episode_starts, 0, discount)
    discounted_return = linear_recurrence(term, decay, reverse=False)
    stats = update_stats(normalizer.stats, discounted_return)
    reward = jnp.clip(rollout.reward / stats.std, -CLIP, CLIP)
    last = jnp.where(episode_ends[-1], 0, discounted_return[-1])
    return RewardNormalizer(last, stats), reward
