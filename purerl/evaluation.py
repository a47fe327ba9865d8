"""Evaluation of a policy on whole episodes from fresh resets, apart from training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from numpy import ndarray

from purerl import envs
from purerl.checks import require_positive_int
from purerl.compute.contexts import in_any_mesh
from purerl.config.config import Config
from purerl.envs import EnvStep
from purerl.rollout import RawTransition, act
from purerl.seeds import EVALUATE, stream_key
from purerl.types import Policy


class Evaluation(eqx.Module):
    """The episodes of one policy.

    `num_unfinished` counts those that `max_steps` cut off; their return and length end there.
    """

    episode_return: Float[Array | ndarray, "*batch episodes"]
    episode_length: Int[Array | ndarray, "*batch episodes"]
    num_unfinished: Int[Array | ndarray, "*batch"]


class EvaluationPair(NamedTuple):
    """Evaluations of the same policies, greedy and with sampled actions; None if not played."""

    greedy: Evaluation | None
    sampled: Evaluation | None


class EpisodeCarry(eqx.Module):
    """A running episode."""

    state: PyTree
    obs: Float[Array, "..."]
    episode_return: Float[Array, ""]
    episode_length: Int[Array, ""]
    alive: Bool[Array, ""]


def evaluate(
    key: Key[Array, ""],
    policy: Policy,
    config: Config,
    *,
    num_episodes: int,
    max_steps: int | None = None,
    greedy: bool = True,
) -> Evaluation:
    """Play `num_episodes` episodes from fresh resets and return their undiscounted sums.

    Any key will do, also that of a seed or of a training state: evaluation derives its own stream.

    **Arguments:** `greedy` takes the distribution's mode, else actions are sampled. `max_steps`
    is by default the time limit of `config`, the largest of a sweep's; where it has none, or a
    traced one, give it.

    **Raises:** `ValueError` where `max_steps` is needed and missing.
    """
    require_positive_int("num_episodes", num_episodes)
    max_steps = config.time_limit if max_steps is None else max_steps
    if max_steps is None:
        raise ValueError(
            f"max_steps is required: the parameters of {type(config.env).__name__} have no "
            f"max_steps_in_episode, or a traced one; give the number of steps after which to stop."
        )
    require_positive_int("max_steps", max_steps)
    sizes = int(num_episodes), int(max_steps), bool(greedy)
    return _compiled_play_episodes(key, policy, config, *sizes)


@in_any_mesh
def play_episodes(
    key: Key[Array, ""],
    policy: Policy,
    config: Config,
    num_episodes: int,
    max_steps: int,
    greedy: bool,
) -> Evaluation:
    """`evaluate`, for a program that is compiled as a whole."""

    def play(key):
        return play_episode(key, policy, config, max_steps=max_steps, greedy=greedy)[0]

    end = jax.vmap(play)(jax.random.split(stream_key(key, EVALUATE), num_episodes))
    return Evaluation(end.episode_return, end.episode_length, jnp.sum(end.alive))


# One function for all calls, in which what is no array is static: equal calls compile once.
_compiled_play_episodes = eqx.filter_jit(play_episodes)


def play_episode(
    key: Key[Array, ""],
    policy: Policy,
    config: Config,
    *,
    max_steps: int,
    greedy: bool = True,
    record: Callable[[Key[Array, ""], EpisodeCarry, RawTransition], Any] | None = None,
) -> tuple[EpisodeCarry, Any]:
    """Play one episode from a fresh reset, in `max_steps` steps of the environment.

    The environment goes on after the end of the episode: return, length and `alive` are those of
    the episode; the state, and what is recorded from `episode_length` on, belong to later ones.

    **Arguments:** `record(env_key, carry, transition)` gives what to record of a step, from the
    environment's key, the episode before the step, and the step.

    **Returns:** the environment after the last step, and the records `[max_steps, ...]`.
    """

    def play_step(carry, key):
        action_key, env_key = jax.random.split(key)
        transition = act(action_key, env_key, policy, carry.state, carry.obs, config, greedy=greedy)
        step = transition.step
        next_carry = EpisodeCarry(
            state=step.state,
            obs=step.obs,
            episode_return=_episode_return(carry, step),
            episode_length=carry.episode_length + carry.alive,
            alive=carry.alive & ~(step.terminated | step.truncated),
        )
        return next_carry, None if record is None else record(env_key, carry, transition)

    reset_key, play_key = jax.random.split(key)
    obs, state = envs.reset(reset_key, config.env, config.env_params)
    start = EpisodeCarry(state, obs, jnp.zeros(()), jnp.int32(0), jnp.array(True))
    # A scan, not a while loop: over sharded seeds, devices would communicate for its condition.
    return jax.lax.scan(play_step, start, jax.random.split(play_key, max_steps))


def _episode_return(carry: EpisodeCarry, step: EnvStep) -> Float[Array, ""]:
    """The return after a step: the sum of rewards, or what the environment reports."""
    if step.episode_return is None:
        return carry.episode_return + jnp.where(carry.alive, step.reward, 0)
    return jnp.where(carry.alive, step.episode_return, carry.episode_return)
