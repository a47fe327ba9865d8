"""Training, top to bottom: a state, a step, and the scan of the step.

Everything here is a pure function of one agent. `jax.jit` compiles it; `jax.vmap` over keys makes
it many agents, over configs many settings.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from purerl.checks import require_divisor, require_positive_int
from purerl.compute.trees import all_finite, pack, select, unpack
from purerl.config.config import Config, require_one_setting
from purerl.config.optimizers import optimizers
from purerl.config.schedules import annealed
from purerl.networks.network import carried, parameters
from purerl.networks.normalization import RewardScale, no_reward_scale, no_stats, scale_rewards
from purerl.rollout import EnvCarry, Episodes, collect, reset_envs
from purerl.seeds import INIT, TRAIN, stream
from purerl.types import Metrics
from purerl.update import Learner, update


class TrainState(eqx.Module):
    """Everything that training carries: arrays only.

    `failed_at` is the update at which the agent stopped being finite and was frozen, −1 while it
    is finite. `key` never changes: the random stream of an update is derived from it and `step`.
    `reward_scale` is None unless rewards are normalised; the statistics of observations are where
    they are used, in the networks.
    """

    key: Key[Array, "*batch"]
    step: Int[Array, "*batch"]
    failed_at: Int[Array, "*batch"]
    learner: Learner
    envs: EnvCarry
    reward_scale: RewardScale | None


def init(key: Key[Array, ""], config: Config) -> TrainState:
    """The state before the first update: fresh networks, optimisers and environments."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key is a raw {key.dtype} array; use a typed key, jax.random.key(0).")
    require_one_setting(config)
    policy_key, baseline_key, env_key = jax.random.split(stream(key, INIT), 3)
    spec = config.env_spec

    def build(factory, key):
        stats = no_stats(spec.obs_space.shape) if config.normalize_obs else None
        return carried(factory(key, spec.obs_space, spec.action_space), stats)

    def start(optimizer, network):
        return None if network is None else optimizer.init(parameters(network))

    policy_optimizer, baseline_optimizer = optimizers(config)
    policy = build(config.policy, policy_key)
    baseline = build(config.baseline, baseline_key) if config.algorithm.has_baseline else None
    return TrainState(
        key=stream(key, TRAIN),
        step=jnp.int32(0),
        failed_at=jnp.int32(-1),
        learner=Learner(
            policy=policy,
            baseline=baseline,
            policy_opt_state=start(policy_optimizer, policy),
            baseline_opt_state=start(baseline_optimizer, baseline),
        ),
        envs=reset_envs(env_key, config),
        reward_scale=no_reward_scale(config.num_envs) if config.normalize_reward else None,
    )


def train_step(state: TrainState, config: Config) -> tuple[TrainState, Metrics]:
    """One rollout and the updates on it; the metrics are scalars.

    An agent whose parameters, optimiser states or environments stop being finite stays at the
    state before this step, `failed_at` says when, and its metrics are NaN from then on.
    """
    config = annealed(config, state.step)
    rollout_key, update_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    env_carry, rollout, episodes = collect(rollout_key, state.learner.policy, state.envs, config)
    reward_scale = state.reward_scale
    if reward_scale is not None:
        reward_scale, reward = scale_rewards(reward_scale, rollout, config.hyper.discount)
        rollout = eqx.tree_at(lambda r: r.reward, rollout, reward)
    learner, report = update(update_key, state.learner, rollout, config)
    metrics = Metrics(**episode_metrics(episodes), **report)

    finite = all_finite((learner, reward_scale, env_carry.obs, env_carry.episode_return))
    # An environment may keep an infinity in its state on purpose; a NaN it cannot mean.
    finite &= all_finite(env_carry.state, is_finite=lambda x: ~jnp.isnan(x))
    alive = finite & (state.failed_at < 0)
    after = TrainState(state.key, state.step + 1, state.failed_at, learner, env_carry, reward_scale)
    failed_at = jnp.where(state.failed_at < 0, state.step, state.failed_at)
    frozen = eqx.tree_at(lambda s: s.failed_at, state, failed_at)
    return select(alive, after, frozen), select(alive, metrics, no_metrics(metrics))


def advance(state: TrainState, config: Config, num_updates: int) -> tuple[TrainState, Metrics]:
    """Train for a number of updates, from any state.

    **Returns:** the new state, and metrics with leaves `[num_updates / log_every]`: a record is
    the mean over `log_every` updates; its episode means are over all episodes that ended in them.

    **Raises:** `ValueError` where `log_every` does not divide `num_updates`.
    """
    require_positive_int("num_updates", num_updates)
    require_divisor("log_every", config.log_every, "num_updates", num_updates)

    def update_once(state, _):
        state, metrics = train_step(state, config)
        return state, pack(metrics)

    def record(state, _):
        state, packed = jax.lax.scan(update_once, state, length=config.log_every)
        return state, pack(summarize(unpack(packed)))

    state, packed = jax.lax.scan(record, state, length=num_updates // config.log_every)
    return state, unpack(packed)


def train(key: Key[Array, ""], config: Config) -> tuple[TrainState, Metrics]:
    """Train one agent from scratch for `config.num_updates` updates.

    **Returns:** the final state, and metrics with leaves `[num_updates / log_every]`.
    """
    return advance(init(key, config), config, config.num_updates)


def episode_metrics(episodes: Episodes) -> dict[str, Array]:
    """Means over the episodes that ended: NaN, not 0, where none did."""
    count = episodes.num_episodes
    return {
        "episode_return": episodes.total_return / count,
        "episode_length": episodes.total_length / count,
        "num_episodes": count,
    }


def summarize(metrics: Metrics) -> Metrics:
    """One record of several updates `[updates]`: episodes weighted by count, the rest averaged.

    A mean is over the updates for which the metric is defined, and NaN where it is for none.
    """
    count = metrics.num_episodes

    def mean_over_episodes(x):
        return jnp.sum(jnp.where(count > 0, x * count, 0)) / jnp.sum(count)

    averaged = jax.tree.map(defined_mean, metrics)
    return eqx.tree_at(
        lambda m: (m.episode_return, m.episode_length, m.num_episodes),
        averaged,
        (
            mean_over_episodes(metrics.episode_return),
            mean_over_episodes(metrics.episode_length),
            jnp.sum(count),
        ),
    )


def defined_mean(x: Array) -> Array:
    """The mean over the entries that are not NaN; NaN where there are none."""
    defined = ~jnp.isnan(x)
    return jnp.sum(jnp.where(defined, x, 0)) / jnp.sum(defined)


def no_metrics(metrics: Metrics) -> Metrics:
    """Metrics of an update that did not happen: no episodes, and NaN."""
    return jax.tree.map(
        lambda x: jnp.full_like(x, jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 0),
        metrics,
    )
