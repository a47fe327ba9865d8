"""Plays one episode of a saved policy, and makes a GIF of it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from purerl import envs
from purerl.checks import require_int32, short_repr
from purerl.config.config import Config
from purerl.distributions import squashed
from purerl.evaluation import play_episode
from purerl.experiment.hosts.memory import host_bytes, require_bytes, tree_bytes
from purerl.experiment.play.gif import write_gif
from purerl.experiment.play.policies import LoadedRun
from purerl.experiment.store.own_files import require_writable
from purerl.experiment.store.paths import as_directory
from purerl.rollout import RawTransition
from purerl.seeds import seed_keys


class Frames(NamedTuple):
    """One episode, from its first state to its last; `episode_return` is that before each state."""

    states: list[Any]
    obs: Float[ndarray, "frames ..."]
    episode_return: Float[ndarray, " frames"]


def record_episode(key: Array, policy: Any, config: Config, *, max_steps: int) -> Frames:
    """Play one greedy episode and keep every step of it."""

    def record(env_key, carry, transition):
        next_state = _successor(env_key, carry.state, transition, config)
        return carry.state, carry.obs, next_state, transition.step.next_obs, transition.step.reward

    @jax.jit
    def play(key):
        return play_episode(key, policy, config, max_steps=max_steps, record=record)

    end, (state, obs, next_state, next_obs, reward) = jax.device_get(play(key))
    length = int(end.episode_length)

    def frame(tree: Any, i: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[i], tree)

    return Frames(
        states=[frame(state, i) for i in range(length)] + [frame(next_state, length - 1)],
        obs=np.concatenate([obs[:length], next_obs[length - 1 : length]]),
        episode_return=np.concatenate([[0.0], np.cumsum(reward[:length])]),
    )


def _successor(env_key: Array, state: Any, transition: RawTransition, config: Config) -> Any:
    """The state in which a step ends, before the reset where the episode is over.

    gymnax's `step` returns the state after the reset. For the picture its inner `step_env` is run
    again, with the key that `step` gave it.
    """
    inner_step: Any = getattr(config.env, "step_env", None)
    if inner_step is None:
        return transition.step.state
    step_key, _ = jax.random.split(env_key)
    params = jax.tree.map(jnp.asarray, config.env_params)
    in_units = squashed(transition.distribution, transition.action)
    action = envs.scale_action(in_units, envs.action_space(config.env, params))
    return inner_step(step_key, state, action, params)[1]


def render_run(
    directory: str | Path,
    seed: int,
    path: str | Path | None = None,
    *,
    episode: int = 0,
    max_steps: int | None = None,
    config: Config | None = None,
    env: Any = None,
) -> tuple[Path, float, int]:
    """Make a GIF of a greedy episode of a saved policy, from its first state to its last.

    Some environments of gymnax are drawn; of all others the observations are, as an image or as
    lines over time. A long episode leaves out frames.

    **Returns:** the file, and the return and the length of the episode.

    **Raises:** `ValueError` where there is no such episode, or it has no end.
    """
    as_directory(directory)
    if isinstance(episode, bool) or not 0 <= episode < 2**32:
        raise ValueError(f"episode = {short_repr(episode)} must be from 0 to 2**32 - 1.")
    if max_steps is not None:
        require_int32("max_steps", max_steps)
    path = Path(directory) / f"seed_{seed}.gif" if path is None else Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"output = {str(path)!r} must end in .gif.")
    loaded = LoadedRun.read(directory, config, env)
    config = loaded.spec.config
    require_writable("output", path)
    limit = config.time_limit if max_steps is None else max_steps
    if limit is None:
        raise ValueError("max_steps is required: the environment has no time limit.")
    policy, shown = loaded.policy(seed), (loaded.states.envs.state, loaded.states.envs.obs)
    of_a_step = tree_bytes(shown) // (len(loaded.spec.seed_ids) * config.num_envs)
    advice = "give fewer as max_steps"
    require_bytes(f"pictures of {limit} steps", limit * of_a_step, host_bytes(), advice)
    # Beyond the last update: an evaluation folds in the number of its update.
    key = jax.random.fold_in(seed_keys(loaded.spec.root, [seed])[0], config.num_updates + 1)
    frames = record_episode(jax.random.fold_in(key, episode), policy, config, max_steps=limit)
    identity = loaded.spec.identity
    write_gif(frames.states, frames.obs, frames.episode_return, config, path, identity)
    return path, float(frames.episode_return[-1]), len(frames.obs) - 1
