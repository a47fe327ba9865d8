"""How good a policy is: whole episodes from fresh resets, apart from training."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from numpy import ndarray

from purerl import envs
from purerl.checks import require_positive_int
from purerl.config.config import Config
from purerl.seeds import EVALUATE, stream
from purerl.types import Policy


class Evaluation(eqx.Module):
    """The episodes of one policy.

    An episode that `max_steps` cut off counts in `num_unfinished`; its return and length are those
    up to there.
    """

    episode_return: Float[Array | ndarray, "*batch episodes"]
    episode_length: Int[Array | ndarray, "*batch episodes"]
    num_unfinished: Int[Array | ndarray, "*batch"]


class Playing(eqx.Module):
    """One episode under way."""

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

    The key may be any, that of a seed or of a training state too: evaluation has a stream of its
    own, derived from it.

    **Arguments:** `greedy` takes the distribution's mode, else actions are sampled. `max_steps`
    defaults to the time limit of the environment's default parameters, and is required where
    those name none.

    **Raises:** `ValueError` where `max_steps` is needed and missing.
    """
    require_positive_int("num_episodes", num_episodes)
    max_steps = config.env_spec.max_steps if max_steps is None else max_steps
    if max_steps is None:
        raise ValueError(
            f"max_steps is required: the default parameters of {type(config.env).__name__} have "
            f"no max_steps_in_episode; give the number of steps after which to stop."
        )
    require_positive_int("max_steps", max_steps)

    def play(playing, key):
        action_key, env_key = jax.random.split(key)
        distribution = policy(playing.obs)
        action = distribution.mode() if greedy else distribution.sample(action_key)
        step = envs.step(env_key, config.env, playing.state, action, config.env_params)
        played = Playing(
            state=step.state,
            obs=step.obs,
            episode_return=playing.episode_return + jnp.where(playing.alive, step.reward, 0),
            episode_length=playing.episode_length + playing.alive,
            alive=playing.alive & ~(step.terminated | step.truncated),
        )
        return played, None

    def episode(key):
        reset_key, play_key = jax.random.split(key)
        obs, state = envs.reset(reset_key, config.env, config.env_params)
        start = Playing(state, obs, jnp.float32(0), jnp.int32(0), jnp.array(True))
        # A scan of fixed length, not a while loop: over sharded seeds a loop's condition would
        # become communication between devices.
        return jax.lax.scan(play, start, jax.random.split(play_key, max_steps))[0]

    keys = jax.random.split(stream(key, EVALUATE), num_episodes)
    end = jax.vmap(episode)(keys)
    return Evaluation(end.episode_return, end.episode_length, jnp.sum(end.alive))
