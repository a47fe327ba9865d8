"""Training, top to bottom: a state, a step, and the scan of the step.

Everything here is a pure function of one agent. `jax.jit` compiles it; `jax.vmap` over keys makes
it many agents, over configs many settings.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from purerl.checks import ceil_div, require_divisor, require_positive_int
from purerl.compute.contexts import in_any_mesh
from purerl.compute.derivatives import flat_where_unsound
from purerl.compute.draws import flat_draws
from purerl.compute.jaxprs import traced
from purerl.compute.mesh import ALONE, Layout
from purerl.compute.trees import (
    Packed,
    Sums,
    depend_on,
    divide,
    has_no_nan,
    pack,
    stays_finite,
    tree_where,
    undefined,
    unpack,
)
from purerl.config.config import Config
from purerl.config.schedules import hyper_at
from purerl.config.swept import require_unbatched
from purerl.networks.network import (
    as_network,
    parameters,
    require_network,
)
from purerl.networks.normalization import (
    RewardNormalizer,
    initial_reward_normalizer,
    initial_stats,
    normalize_rewards,
)
from purerl.rollout import EnvCarry, collect, episode_metrics, reset_envs, sum_updates
from purerl.seeds import INIT, TRAIN, stream_key
from purerl.types import Metrics, Transition
from purerl.update import Learner, update


class TrainState(eqx.Module):
    """Everything that training carries: arrays only.

    `failed_at` is the update at which the agent stopped being finite and was frozen, −1 while it
    is finite. `key` never changes: the random stream of an update is derived from it and `step`.
    `reward_normalizer` is None unless rewards are normalised. Networks hold the statistics of
    observations.
    """

    key: Key[Array, "*batch"]
    step: Int[Array, "*batch"]
    failed_at: Int[Array, "*batch"]
    learner: Learner
    envs: EnvCarry
    reward_normalizer: RewardNormalizer | None


@in_any_mesh
def init(key: Key[Array, ""], config: Config, *, layout: Layout = ALONE) -> TrainState:
    """The state before the first update: fresh networks, optimisers and environments.

    **Arguments:** `layout`, here and in the functions below, says how many devices share the
    agent's environments, which `train_seeds` and `run` know of their mesh; by itself it has one.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key is a raw {key.dtype} array; use a typed key, jax.random.key(0).")
    require_unbatched(config)
    initial_state = functools.partial(_initial_state, config=config, layout=layout)
    return flat_draws(initial_state, layout)(key)


def _initial_state(key: Key[Array, ""], config: Config, layout: Layout) -> TrainState:
    policy_key, baseline_key, env_key = jax.random.split(stream_key(key, INIT), 3)
    spec = config.env_spec

    def build(factory, key):
        stats = initial_stats(spec.obs_space.shape) if config.normalize_obs else None
        return as_network(factory(key, spec.obs_space, spec.action_space), stats)

    def init_optimizer(optimizer, network):
        return None if network is None else optimizer.init(parameters(network))

    optimizers = config.optimizers
    policy = build(config.policy, policy_key)
    baseline = build(config.baseline, baseline_key) if config.algorithm.has_baseline else None
    normalizer = initial_reward_normalizer(config.num_envs) if config.normalize_reward else None
    return TrainState(
        key=stream_key(key, TRAIN),
        step=jnp.int32(0),
        failed_at=jnp.int32(-1),
        learner=Learner(
            policy=policy,
            baseline=baseline,
            policy_opt_state=init_optimizer(optimizers.policy, policy),
            baseline_opt_state=init_optimizer(optimizers.baseline, baseline),
        ),
        envs=reset_envs(env_key, config, layout),
        reward_normalizer=normalizer,
    )


@in_any_mesh
def train_step(
    state: TrainState, config: Config, *, layout: Layout = ALONE
) -> tuple[TrainState, Metrics]:
    """One rollout and the update on it; the metrics are scalars.

    An agent fails where a number of its networks, normalisers, observations or returns becomes NaN,
    or infinite where it was not, or one of its optimisers or environments becomes NaN. It keeps the
    state from before that step. `failed_at` says when; its metrics are NaN from then on.
    """
    state, metrics = _packed_step(state, config, layout)
    return state, unpack(metrics)


def attempt_step(
    state: TrainState, config: Config, layout: Layout = ALONE
) -> tuple[TrainState, Transition, Packed]:
    """One rollout and the update on it, whether or not all stays finite.

    **Returns:** the state after it, the rollout as it was learnt from, and the metrics, packed.
    """
    for name in ("policy", "baseline"):
        require_network(name, getattr(state.learner, name), has_stats=config.normalize_obs)
    config = eqx.tree_at(lambda config: config.hyper, config, hyper_at(config, state))

    def split_at(key, step):
        return jax.random.split(jax.random.fold_in(key, step))

    rollout_key, update_key = flat_draws(split_at, layout)(state.key, state.step)
    env_carry, rollout, episodes = collect(
        rollout_key, state.learner.policy, state.envs, config, layout
    )
    normalizer = state.reward_normalizer
    if normalizer is not None:
        normalizer, reward = normalize_rewards(normalizer, rollout, config.hyper.discount)
        rollout = eqx.tree_at(lambda r: r.reward, rollout, reward)
    learner, report = update(update_key, state.learner, rollout, config, layout)
    metrics = pack(Metrics(**episode_metrics(episodes), **report))
    after = TrainState(state.key, state.step + 1, state.failed_at, learner, env_carry, normalizer)
    return after, rollout, metrics


def _packed_step(state: TrainState, config: Config, layout: Layout) -> tuple[TrainState, Packed]:
    """`train_step`, with its metrics packed as they leave a loop."""
    judged_step = functools.partial(_judged_step, layout=layout)
    (after, metrics), is_sound = flat_where_unsound(judged_step)(state, config)
    was_alive = state.failed_at < 0
    alive = is_sound & was_alive
    failed_at = jnp.where(was_alive, state.step, state.failed_at)
    frozen = eqx.tree_at(lambda s: s.failed_at, state, failed_at)
    return tree_where(alive, after, frozen), tree_where(alive, metrics, undefined(metrics))


def _judged_step(
    state: TrainState, config: Config, layout: Layout
) -> tuple[tuple[TrainState, Packed], Bool[Array, ""]]:
    """What a step came to, and whether all of it stayed finite."""
    after, _, metrics = attempt_step(state, config, layout)
    learner, env_carry, normalizer = after.learner, after.envs, after.reward_normalizer
    # An environment and an optimiser may hold an infinity on purpose, but no NaN.
    is_sound = stays_finite(
        (learner.policy, learner.baseline, normalizer, env_carry.obs, env_carry.episode_return),
        (
            state.learner.policy,
            state.learner.baseline,
            state.reward_normalizer,
            state.envs.obs,
            state.envs.episode_return,
        ),
        layout,
    )
    opt_states = learner.policy_opt_state, learner.baseline_opt_state
    is_sound &= has_no_nan((opt_states, env_carry.state), layout)
    return (after, metrics), is_sound


@in_any_mesh
def advance(
    state: TrainState, config: Config, num_updates: int, *, layout: Layout = ALONE
) -> tuple[TrainState, Metrics]:
    """Train for a number of updates, from any state.

    **Returns:** the new state, and metrics with leaves `[⌈num_updates / log_every⌉]`. A record is
    the mean over `log_every` updates, the last over what is left of them; its episode means are
    over all episodes that ended in them.
    """
    require_positive_int("num_updates", num_updates)
    state = depend_on(state.key, state)
    every, num_records = config.log_every, ceil_div(num_updates, config.log_every)
    numbers = None
    step = functools.partial(_packed_step, config=config, layout=layout)
    if num_updates % every:
        numbers = jnp.arange(num_records * every).reshape(num_records, every)
        step, blank = _traced_step(step, state)

    def update_once(state, i):
        if numbers is None:
            return step(state)
        return jax.lax.cond(i < num_updates, step, lambda state: (state, blank), state)

    def record(state, each):
        if every > 1:
            state, metrics = jax.lax.scan(update_once, state, each, length=every)
        else:  # without a loop of one iteration, which would be compiled as a loop
            state, metrics = step(state)
            metrics = jax.tree.map(lambda leaf: leaf[None], metrics)
        return state, sum_updates(metrics)

    state, records = jax.lax.scan(record, state, numbers, length=num_records)
    return state, divide(records)


def advance_window(
    state: TrainState,
    config: Config,
    num_updates: int,
    window: Int[Array, "2"],
    layout: Layout = ALONE,
) -> tuple[TrainState, Sums]:
    """Train for the updates `begin ≤ i < end` of a chunk of `num_updates`, whole records.

    One program has all windows `[begin, end]`. Reverse-mode derivatives go through `advance` alone.

    **Returns:** the new state, and records `[num_updates / log_every]` before their division, which
    is left to the host; those of no update of the window add up nothing.
    """
    require_divisor("log_every", config.log_every, "num_updates", num_updates)
    every, (begin, end) = config.log_every, window
    step = functools.partial(_packed_step, config=config, layout=layout)
    step, blank = _traced_step(step, state)
    rows = jax.tree.map(lambda leaf: jnp.stack([leaf] * every), blank)
    records = jax.tree.map(
        lambda leaf: jnp.zeros((num_updates // every, *leaf.shape), leaf.dtype),
        jax.eval_shape(sum_updates, rows),
    )
    state, rows, records = depend_on(state.key, (state, rows, records))

    def put(leaves, leaf, i):
        return jax.tree.map(lambda leaves, leaf: leaves.at[i].set(leaf), leaves, leaf)

    def update_once(i, carry):
        state, rows = carry
        state, metrics = step(state)
        return state, put(rows, metrics, i % every)

    def record(i, carry):
        state, records = carry
        if every > 1:
            bounds = jnp.maximum(begin, i * every), jnp.minimum(end, (i + 1) * every)
            state, metrics = jax.lax.fori_loop(*bounds, update_once, (state, rows))
        else:  # without a loop of one iteration, which would be compiled as a loop
            state, metrics = step(state)
            metrics = jax.tree.map(lambda leaf: leaf[None], metrics)
        return state, put(records, sum_updates(metrics), i)

    return jax.lax.fori_loop(begin // every, -(-end // every), record, (state, records))


def _traced_step(step: Callable[..., Any], state: TrainState) -> tuple[Callable[..., Any], Packed]:
    """A packed step, traced once, and the metrics of an update that is not made."""
    step, (_, shapes) = traced(step, state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return step, undefined(zeros)


def train(
    key: Key[Array, ""], config: Config, *, layout: Layout = ALONE
) -> tuple[TrainState, Metrics]:
    """Train one agent from scratch for `config.num_updates` updates.

    **Returns:** the final state, and metrics with leaves `[⌈num_updates / log_every⌉]`.
    """
    state = init(key, config, layout=layout)
    return advance(state, config, config.num_updates, layout=layout)
