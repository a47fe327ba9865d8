"""Why an agent failed: its failed update once more, with a look at all that it computes.

Training itself only says that something stopped being finite. A frozen state is that from before
the failed update, and the random numbers of an update depend on the state alone, so that the
update can be repeated. What is here is pure, as training is.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from purerl.agents import Agent
from purerl.compute.mesh import ALONE, Layout
from purerl.compute.trees import has_no_nan, stays_finite
from purerl.config.config import Config
from purerl.config.schedules import hyper_at
from purerl.networks.network import Network
from purerl.training import TrainState, attempt_step
from purerl.types import Env, Transition
from purerl.update import rollout_values

# What may stop being finite: in a step of the rollout, in this order, and in the whole update.
IN_A_STEP = ("action", "environment state", "observation", "reward")
PARTS = (
    *IN_A_STEP,
    "reward normaliser",
    "value",
    "advantage",
    "policy",
    "policy optimiser",
    "baseline",
    "baseline optimiser",
    "observation normaliser",
    "episode return",
)


class Finding(NamedTuple):
    """What first was not finite: an index into `PARTS`, and the step of the rollout, from 0.

    The step is −1 where it is none of the rollout. Where all stayed finite, the index is
    `len(PARTS)`.
    """

    part: Int[Array, "*batch"]
    step: Int[Array, "*batch"]


def replay_agent(
    frozen: tuple[TrainState, Agent], shared: Config, layout: Layout = ALONE
) -> Finding:
    """`replay`, for one entry of a batch of agents."""
    state, agent = frozen
    return replay(state, eqx.combine(agent.per_agent, shared), layout)


def replay(state: TrainState, config: Config, layout: Layout = ALONE) -> Finding:
    """Repeat the update in which an agent failed, and find what first was not finite in it.

    What counts is what counts in training: a NaN, and an infinity that was not there before, but of
    an optimiser's or an environment's state a NaN alone.
    """
    watching = dataclasses.replace(config, env=Watched(config.env))
    carry = dataclasses.replace(state.envs, state=_watch(state.envs.state, (config.num_envs,)))
    watched = dataclasses.replace(state, envs=carry)
    after, rollout, _ = attempt_step(watched, watching, layout)
    first_steps = _first_steps(state, after, rollout)
    step = jnp.min(jnp.stack(first_steps))
    in_rollout = [(first == step) & (step < config.rollout_length) for first in first_steps]
    is_bad = dict(zip(IN_A_STEP, in_rollout, strict=True)) | _bad_parts(
        state, after, rollout, config
    )
    # A network that is NaN from the start makes everything else NaN.
    born_bad = {
        name: ~has_no_nan(network)
        for name, network in (
            ("policy", state.learner.policy),
            ("baseline", state.learner.baseline),
        )
    }
    found = [(bad, PARTS.index(name)) for name, bad in (*born_bad.items(), *is_bad.items())]
    part = jnp.select(*map(list, zip(*found, strict=True)), default=len(PARTS))
    return Finding(part, jnp.where(part < len(IN_A_STEP), step, -1))


def _first_steps(before: TrainState, after: TrainState, rollout: Transition) -> list[Array]:
    """The first step in which each of `IN_A_STEP` is not finite; the rollout's length for none."""
    length = len(rollout.reward)
    following = jnp.concatenate([rollout.obs[1:], after.envs.obs[None]])

    def first(*arrays: Array, old: Any = 0.0) -> Array:
        """The first step at which one of several arrays `[T, N, ...]` is not finite."""
        sound = [jnp.isfinite(x) | (jnp.isinf(x) & jnp.isinf(old)) for x in arrays]
        bad = jnp.stack([~jnp.all(each.reshape(length, -1), axis=1) for each in sound])
        return jnp.min(jnp.where(bad, jnp.arange(length), length))

    return [
        first(rollout.action, rollout.log_prob),
        jnp.min(after.envs.state.first_bad_state, initial=length),
        first(following, rollout.next_obs, old=before.envs.obs),
        jnp.min(after.envs.state.first_bad_reward, initial=length),
    ]


def _bad_parts(
    before: TrainState, after: TrainState, rollout: Transition, config: Config
) -> dict[str, Bool[Array, ""]]:
    """Which parts of an update are not finite, in the order in which they are computed."""
    bad = {"reward normaliser": ~stays_finite(after.reward_normalizer, before.reward_normalizer)}
    value = next_value = None
    if before.learner.baseline is not None:
        value, next_value = rollout_values(before.learner.baseline, rollout)
        bad["value"] = ~jnp.all(jnp.isfinite(value))
    hyper = hyper_at(config, before)
    estimate = config.estimate(rollout, value, next_value, hyper)
    counts = estimate.weight > 0
    targets = jnp.stack([estimate.advantage, estimate.value_target])
    bad["advantage"] = ~jnp.all(jnp.where(counts, jnp.isfinite(targets), True))
    for name in ("policy", "baseline"):
        network, old = getattr(after.learner, name), getattr(before.learner, name)
        if network is not None:
            bad[name] = ~stays_finite(_without_stats(network), _without_stats(old))
            bad[f"{name} optimiser"] = ~has_no_nan(getattr(after.learner, f"{name}_opt_state"))
    stats, old_stats = after.learner.policy.stats, before.learner.policy.stats
    bad["observation normaliser"] = ~stays_finite(stats, old_stats)
    bad["episode return"] = ~stays_finite(after.envs.episode_return, before.envs.episode_return)
    return bad


def _without_stats(network: Network) -> PyTree:
    return dataclasses.replace(network, stats=None)


class WatchedState(NamedTuple):
    """An environment's state, with the steps taken, and those that first went wrong."""

    state: PyTree
    steps: Int[Array, "*batch"]
    first_bad_state: Int[Array, "*batch"]
    first_bad_reward: Int[Array, "*batch"]


def _watch(state: PyTree, shape: tuple[int, ...]) -> WatchedState:
    """The state of an environment, or of several, that begins to be watched."""
    never = jnp.full(shape, jnp.iinfo(jnp.int32).max)
    return WatchedState(state, jnp.zeros(shape, jnp.int32), never, never)


@dataclasses.dataclass(frozen=True)
class Watched:
    """An environment that notes when its state or its reward is first not finite."""

    env: Env

    @property
    def default_params(self) -> PyTree:
        return getattr(self.env, "default_params", None)

    def observation_space(self, params: PyTree) -> Any:
        return self.env.observation_space(params)

    def action_space(self, params: PyTree) -> Any:
        return self.env.action_space(params)

    def reset(self, key: Key[Array, ""], params: PyTree) -> tuple[Array, WatchedState]:
        obs, state = self.env.reset(key, params)
        return obs, _watch(state, ())

    def step(
        self, key: Key[Array, ""], state: WatchedState, action: Any, params: PyTree
    ) -> tuple[Array, WatchedState, Array, Array, Array, dict[str, Any]]:
        obs, inner, reward, terminated, truncated, info = self.env.step(
            key, state.state, action, params
        )

        def first(so_far, is_bad):
            return jnp.minimum(so_far, jnp.where(is_bad, state.steps, so_far))

        watched = WatchedState(
            state=inner,
            steps=state.steps + 1,
            first_bad_state=first(state.first_bad_state, ~has_no_nan(inner)),
            first_bad_reward=first(state.first_bad_reward, ~jnp.isfinite(reward)),
        )
        return obs, watched, reward, terminated, truncated, info
