"""Running statistics: what observations are normalised and rewards are scaled with."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from purerl.compute.platforms import recurrence
from purerl.types import Transition

LIMIT = 10.0  # what is normalised is clipped to ± this


class RunningStats(eqx.Module):
    """The count, mean and summed squared deviation of all that was seen, element by element."""

    count: Float[Array, "*batch"]
    mean: Float[Array, "*batch_x"]
    squares: Float[Array, "*batch_x"]

    @property
    def std(self) -> Float[Array, "*batch_x"]:
        """The standard deviation; 1 before anything was seen."""
        variance = self.squares / jnp.maximum(self.count, 1)
        return jnp.where(self.count > 0, jnp.sqrt(variance + 1e-8), 1)

    def normalize(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """`(x − mean) / std`, clipped to ±10."""
        return jnp.clip((x - self.mean) / self.std, -LIMIT, LIMIT)


def no_stats(shape: tuple[int, ...]) -> RunningStats:
    """Statistics of nothing: they leave what they normalise as it is, but for the clipping."""
    return RunningStats(jnp.float32(0), jnp.zeros(shape), jnp.zeros(shape))


def merge(stats: RunningStats, x: Float[Array, "*batch_x"]) -> RunningStats:
    """Statistics of what was seen before and of x, a batch with any leading axes.

    Chan et al. (1979), "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    leading = tuple(range(x.ndim - stats.mean.ndim))
    new = x.size // max(stats.mean.size, 1)
    new_mean = jnp.mean(x, leading)
    count = stats.count + new
    shift = new_mean - stats.mean
    return RunningStats(
        count=count,
        mean=stats.mean + shift * (new / count),
        squares=stats.squares
        + jnp.sum((x - new_mean) ** 2, leading)
        + shift**2 * (stats.count * (new / count)),
    )


class RewardScale(eqx.Module):
    """What rewards are divided by: the spread of the discounted return so far in an episode."""

    discounted_return: Float[Array, "*batch"]
    stats: RunningStats


def no_reward_scale(num_envs: int) -> RewardScale:
    """The scale before the first rollout."""
    return RewardScale(jnp.zeros(num_envs), no_stats(()))


def scale_rewards(
    scale: RewardScale, rollout: Transition, discount: Float[Array, ""]
) -> tuple[RewardScale, Float[Array, "T N"]]:
    """Divide a rollout's rewards by the standard deviation of `x_t = reward_t + γ · x_{t−1}`.

    x begins anew with each episode. The statistics cover all rollouts up to and with this one, over
    all environments of the agent; the scaled rewards are clipped to ±10.
    """
    done = rollout.terminated | rollout.truncated
    begins = jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]])
    term = rollout.reward.at[0].add(discount * scale.discounted_return)
    decay = jnp.where(begins, 0, discount)
    discounted_return = recurrence(term, decay, reverse=False)
    stats = merge(scale.stats, discounted_return)
    reward = jnp.clip(rollout.reward / stats.std, -LIMIT, LIMIT)
    last = jnp.where(done[-1], 0, discounted_return[-1])
    return RewardScale(last, stats), reward
