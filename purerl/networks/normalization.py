"""Running statistics, with which observations are normalised and rewards are scaled."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from purerl.compute.platforms import linear_recurrence
from purerl.types import Transition

CLIP = 10.0  # normalised values are clipped to ± this


class RunningStats(eqx.Module):
    """The count, mean and summed squared deviation of all that was seen, element by element.

    Each is a sum of two numbers: `rest` is what rounding has left out of the three, in that order.
    So the count is exact, and the mean is known better than a float can say: of 10⁴ ± 1 as of ±1.
    `std` is the standard deviation, 1 before anything was seen.
    """

    count: Float[Array, "*batch"]
    mean: Float[Array, "*batch_x"]
    squared_deviations: Float[Array, "*batch_x"]
    std: Float[Array, "*batch_x"]
    rest: tuple[Float[Array, "*batch"], Float[Array, "*batch_x"], Float[Array, "*batch_x"]]

    def normalize(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """`(x − mean) / std`, clipped to ±10."""
        return jnp.clip((x - self.mean - self.rest[1]) / self.std, -CLIP, CLIP)


def initial_stats(shape: tuple[int, ...]) -> RunningStats:
    """Statistics before any data: they normalise nothing, and only clip."""

    def zeros():
        return jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape)

    return RunningStats(*zeros(), std=jnp.ones(shape), rest=zeros())


def update_stats(stats: RunningStats, x: Float[Array, "*batch_x"]) -> RunningStats:
    """Add x, a batch with any leading axes, to the statistics.

    Chan et al. (1979), "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    leading = tuple(range(x.ndim - stats.mean.ndim))
    batch_count = x.size // max(stats.mean.size, 1)
    # The mean is subtracted twice: once leaves a rounding error, of x far from 0 a large one.
    batch_mean = jnp.mean(x, leading)
    centered = x - batch_mean
    mean_error = jnp.mean(centered, leading)
    batch_variance = jnp.maximum(jnp.mean(centered**2, leading) - mean_error**2, 0)
    shift = (batch_mean - stats.mean) + (mean_error - stats.rest[1])
    share = batch_count / (stats.count + batch_count)
    totals = (stats.count, stats.mean, stats.squared_deviations)
    terms = (
        batch_count,
        shift * share,
        batch_count * batch_variance + shift**2 * (stats.count * share),
    )
    sums = [_add(*each) for each in zip(totals, stats.rest, terms, strict=True)]
    (count, mean, squared_deviations), rest = zip(*sums, strict=True)
    std = jnp.sqrt(squared_deviations / count + 1e-8)
    return RunningStats(count, mean, squared_deviations, std, rest)


def _add(
    total: Float[Array, "*x"], rest: Float[Array, "*x"], term: Float[Array, "*x"] | int
) -> tuple[Float[Array, "*x"], Float[Array, "*x"]]:
    """`total + rest + term`, rounded, and what rounding has left out of it.

    Knuth (1969), "The art of computer programming", volume 2, section 4.2.2, theorem B.
    """
    term = term + rest
    rounded = total + term
    added = rounded - total
    return rounded, (total - (rounded - added)) + (term - added)


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
