"""One episode of a saved policy, step by step, for a picture."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from purerl import envs
from purerl.checks import one_line, require_positive_int
from purerl.config.config import Config
from purerl.experiment.play.gif import make_film
from purerl.experiment.play.policies import load_states, policy_of
from purerl.experiment.store.files import require_writable
from purerl.seeds import seed_keys


class Frames(NamedTuple):
    """One episode: its states and observations, the last one too, and the return before each."""

    states: list[Any]
    obs: Float[ndarray, "frames ..."]
    episode_return: Float[ndarray, " frames"]


def play_frames(key: Array, policy: Any, config: Config, *, max_steps: int) -> Frames:
    """Play one greedy episode and keep every step of it."""

    def play(carry, key):
        state, obs, alive = carry
        action = policy(obs).mode()
        step = envs.step(key, config.env, state, action, config.env_params)
        ended = step.terminated | step.truncated
        after = _successor(key, state, action, step.state, config)
        return (step.state, step.obs, alive & ~ended), (after, step.next_obs, step.reward, alive)

    @jax.jit
    def episode(key):
        reset_key, play_key = jax.random.split(key)
        obs, state = envs.reset(reset_key, config.env, config.env_params)
        start = (state, obs, jnp.array(True))
        return (state, obs), jax.lax.scan(play, start, jax.random.split(play_key, max_steps))[1]

    first, (states, obs, reward, alive) = jax.device_get(episode(key))
    length = int(np.sum(alive))
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in range(length)]
    return Frames(
        states=[first[0], *each],
        obs=np.concatenate([first[1][None], obs[:length]]),
        episode_return=np.concatenate([[0.0], np.cumsum(reward[:length])]),
    )


def _successor(key: Array, state: Any, action: Any, reset: Any, config: Config) -> Any:
    """The state in which a step ends, where an environment of gymnax tells it.

    Its `step` gives that after the reset, where the episode is over; for a picture alone, its
    inner step is taken again, with the key that `step` has given it.
    """
    inner_step: Any = getattr(config.env, "step_env", None)
    if inner_step is None:
        return reset
    step_key, _ = jax.random.split(key)
    space = config.env_spec.action_space
    if isinstance(space, envs.Box):
        action = jnp.clip(action, space.low, space.high)
    params = jax.tree.map(jnp.asarray, config.env_params)
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

    gymnax draws its own environments where it can; of others the observation is shown, as an image
    or as lines over time. Of a long episode, every second frame, or third, is taken.

    **Returns:** the file, and the return and the length of the episode.

    **Raises:** `ValueError` where there is no such episode, or it has no end.
    """
    directory = Path(directory)
    if isinstance(episode, bool) or not 0 <= episode < 2**32:
        raise ValueError(f"episode = {one_line(episode)} must be from 0 to 2**32 - 1.")
    if max_steps is not None:
        require_positive_int("max_steps", max_steps)
    path = directory / f"seed_{seed}.gif" if path is None else Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"output = {str(path)!r} must end in .gif.")
    plan, states, _ = load_states(directory, config, env)
    require_writable("output", path)
    limit = plan.config.time_limit if max_steps is None else max_steps
    if limit is None:
        raise ValueError("max_steps is required: the environment has no time limit.")
    policy = policy_of(plan, states, seed)
    key = jax.random.fold_in(seed_keys(plan.root, [seed])[0], plan.config.num_updates + 1)
    frames = play_frames(jax.random.fold_in(key, episode), policy, plan.config, max_steps=limit)
    make_film(frames.states, frames.obs, frames.episode_return, plan.config, path)
    return path, float(frames.episode_return[-1]), len(frames.obs) - 1
