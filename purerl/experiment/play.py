"""Policies of a run at play: thousands of episodes for numbers, one for a picture."""

import importlib.util
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Array, Float
from matplotlib import animation
from matplotlib.figure import Figure
from numpy import ndarray

from purerl import envs
from purerl.checks import require_positive_int
from purerl.config import Config
from purerl.evaluate import Evaluation
from purerl.experiment.header import env_name
from purerl.experiment.policies import load_policy, load_states
from purerl.experiment.programs import Play
from purerl.experiment.run import Plan
from purerl.seeds import Agent, agents_of, pad_seeds, seed_keys, seed_mesh, seed_program

BLOCK = 256  # episodes of a seed that are played at once
FRAMES = 200  # of a GIF, at most
CLASSIC = (  # drawn by gymnax with what gymnasium and pygame have
    *("Acrobot-v1", "CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
)
DRAWN = (  # drawn by gymnax alone
    *("Catch-bsuite", "Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar"),
    *("SpaceInvaders-MinAtar", "PointRobot-misc", "FourRooms-misc", "MetaMaze-misc"),
)


class Played(NamedTuple):
    """An evaluation of saved policies: `[seeds, episodes]`, and the updates they were trained."""

    plan: Plan
    seed_ids: tuple[int, ...]
    updates: int
    failed: ndarray
    evaluation: Evaluation


def evaluate_run(
    directory: str | Path,
    *,
    episodes: int = 1000,
    sampled: bool = False,
    seeds: Sequence[int] | None = None,
    config: Config | None = None,
    env: Any = None,
) -> Played:
    """Play episodes with the policies in the newest checkpoint of a run.

    They are played in blocks of a fixed length, with keys that training and its evaluations do not
    use. The number of episodes is rounded up to whole blocks of 256, from 256 on.

    **Raises:** `ValueError` where there is no checkpoint, a seed is not in the run, or the
    environment has no time limit.
    """
    require_positive_int("episodes", episodes)
    plan, states, updates = load_states(Path(directory), config, env)
    limit = plan.config.time_limit
    if limit is None:
        raise ValueError(
            "the environment has no time limit; play it yourself with purerl.evaluate(..., "
            "max_steps=...)."
        )
    ids = plan.seed_ids if seeds is None else tuple(seeds)
    missing = [seed for seed in ids if seed not in plan.seed_ids]
    if missing or not ids:
        raise ValueError(f"seeds = {missing} are not in this run; use some of {plan.seed_ids}.")
    index = np.array([plan.seed_ids.index(seed) for seed in ids])
    policies = jax.tree.map(lambda leaf: leaf[index], states.learner.policy)

    mesh = seed_mesh()
    agents, fixed = agents_of(seed_keys(plan.root, ids), plan.config)
    play = seed_program(Play(min(episodes, BLOCK), limit, sampled), mesh, num_batched=2)
    batch: tuple[Any, Agent] = pad_seeds((policies, agents), mesh.size)
    blocks = []
    for block in range(-(-episodes // BLOCK)):
        # One more than any update: the episodes after an update have its number.
        number = np.int32(plan.config.num_updates + 1 + block)
        greedy, drawn = play(*batch, number, fixed)
        block = drawn if sampled else greedy
        blocks.append(jax.tree.map(lambda leaf: np.asarray(leaf)[: len(ids)], block))
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(block, name) for block in blocks], axis=1)
        for name in ("episode_return", "episode_length")
    }
    unfinished: Any = np.sum([block.num_unfinished for block in blocks], axis=0)
    together = Evaluation(**joined, num_unfinished=unfinished)
    failed = np.asarray(states.failed_at)[index] >= 0
    return Played(plan, ids, updates, failed, together)


class Frames(NamedTuple):
    """One episode, step by step: states and observations before each step, and its reward."""

    states: list[Any]
    obs: Float[ndarray, "steps ..."]
    reward: Float[ndarray, " steps"]


def play_frames(key: Array, policy: Any, config: Config, *, max_steps: int) -> Frames:
    """Play one greedy episode and keep every step of it."""

    def play(carry, key):
        state, obs, alive = carry
        step = envs.step(key, config.env, state, policy(obs).mode(), config.env_params)
        ended = step.terminated | step.truncated
        return (step.state, step.obs, alive & ~ended), (state, obs, step.reward, alive)

    @jax.jit
    def episode(key):
        reset_key, play_key = jax.random.split(key)
        obs, state = envs.reset(reset_key, config.env, config.env_params)
        start = (state, obs, jnp.array(True))
        return jax.lax.scan(play, start, jax.random.split(play_key, max_steps))[1]

    states, obs, reward, alive = episode(key)
    length = int(np.sum(alive))
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in range(length)]
    return Frames(each, np.asarray(obs)[:length], np.asarray(reward)[:length])


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
    """Make a GIF of a greedy episode of a saved policy.

    gymnax draws its own environments where it can; of others the observation is shown, as an image
    or as lines over time. Of a long episode, every second frame, or third, is taken.

    **Returns:** the file, and the return and the length of the episode.
    """
    directory = Path(directory)
    plan, _, _ = load_states(directory, config, env)
    limit = max_steps or plan.config.time_limit
    if limit is None:
        raise ValueError("max_steps is required: the environment has no time limit.")
    require_positive_int("max_steps", limit)
    policy = load_policy(directory, seed, plan.config)
    key = jax.random.fold_in(seed_keys(plan.root, [seed])[0], plan.config.num_updates + 1)
    frames = play_frames(jax.random.fold_in(key, episode), policy, plan.config, max_steps=limit)
    path = directory / f"seed_{seed}.gif" if path is None else Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"output = {str(path)!r} must end in .gif.")
    _draw(frames, plan.config, path)
    return path, float(frames.reward.sum()), len(frames.reward)


def _draw(frames: Frames, config: Config, path: Path) -> None:
    every = -(-len(frames.states) // FRAMES)
    total = np.cumsum(frames.reward)[::every]
    name = getattr(config.env, "name", None)
    has_pygame = all(importlib.util.find_spec(each) for each in ("gymnasium", "pygame"))
    if name in CLASSIC and not has_pygame:
        warnings.warn(
            "the observations are drawn, for want of pygame; for pictures install purerl[render].",
            stacklevel=3,
        )
    if name in DRAWN or (name in CLASSIC and has_pygame):
        _draw_by_gymnax(frames, config, path, every, total)
        return
    obs = frames.obs
    figure = Figure(figsize=(4.5, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    if obs.ndim == 4:
        images = _images(obs)[::every]
        shown = axes.imshow(images[0], vmin=0, vmax=max(1e-6, float(images.max())))
        axes.set_axis_off()

        def update(i: int) -> None:
            shown.set_data(images[i])
            axes.set_title(f"step {i * every + 1}, return {total[i]:.2f}", loc="left")
    else:
        steps, columns = np.arange(len(obs)), obs.reshape(len(obs), -1)
        drawn = axes.plot(steps, columns, linewidth=1)
        axes.set_xlabel("step")
        axes.set_ylabel("observation")

        def update(i: int) -> None:
            for line, column in zip(drawn, columns.T, strict=True):
                line.set_data(steps[: i * every + 1], column[: i * every + 1])
            axes.set_title(f"step {i * every + 1}, return {total[i]:.2f}", loc="left")

    film = animation.FuncAnimation(figure, update, frames=len(total), blit=False)
    film.save(path, writer=animation.PillowWriter(fps=12))


def _draw_by_gymnax(
    frames: Frames, config: Config, path: Path, every: int, total: Float[ndarray, " frames"]
) -> None:
    matplotlib.use("Agg")  # gymnax draws with pyplot and pygame, which look for a screen and sound
    for name in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):
        os.environ.setdefault(name, "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from gymnax.visualize import Visualizer

    drawn: Any = Visualizer(config.env, config.env_params, frames.states[::every], total)
    draw = drawn.update

    def update(i: int) -> None:
        draw(i)
        title = f"{env_name(config)}: step {i * every + 1}, return {total[i]:.2f}"
        drawn.ax.set_title(title, fontsize=13)  # it counts frames, not steps

    drawn.update = update
    drawn.animate(str(path))


def _images(obs: Float[ndarray, "steps height width channels"]) -> ndarray:
    """Channels as one picture: each has its own shade."""
    return np.max(obs * np.arange(1, obs.shape[-1] + 1), axis=-1)
