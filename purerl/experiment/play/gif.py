"""Draws an episode into a GIF: its states, or the observations where no drawing is known."""

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy import ndarray
from PIL import Image

from purerl.checks import ceil_div
from purerl.config.config import Config
from purerl.experiment.report.figures import default_style
from purerl.experiment.store import files
from purerl.experiment.store.header import env_name
from purerl.experiment.store.identity import Identity

MAX_FRAMES = 200  # of a GIF
FRAME_MS, LAST_FRAME_MS = 80, 1500
MAX_LABELS = 8  # of the lines of a drawing

Update = Callable[[int], None]
# gymnax draws these with gymnasium and pygame.
CLASSIC = ("Acrobot-v1", "CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0")
MAZES = ("FourRooms-misc", "MetaMaze-misc")


def write_gif(
    states: list[Any],
    obs: Float[ndarray, "frames ..."],
    episode_return: Float[ndarray, " frames"],
    config: Config,
    path: Path,
    identity: Identity,
) -> None:
    """Draw the states of an episode, each with the return before it, into a GIF.

    Its comment says of which run it is.
    """
    name, last = env_name(config), len(states) - 1
    steps = [*range(0, last, ceil_div(len(states), MAX_FRAMES)), last]
    images = []
    with headless(), default_style():
        figure = Figure(figsize=(5, 4.6), dpi=100)
        canvas = FigureCanvasAgg(figure)  # it leaves the backend of the program alone
        axes = figure.add_axes((0.13, 0.11, 0.82, 0.79))
        title = axes.set_title("", loc="left", fontsize=11, parse_math=False)
        update = _make_artist(axes, states, obs, config)
        for i in steps:
            update(i)
            title.set_text(f"{name}: step {i} of {last}, return {episode_return[i]:.2f}")
            canvas.draw()
            pixels = np.array(canvas.buffer_rgba())[..., :3]
            images.append(Image.fromarray(pixels).quantize(128))
    options: dict[str, Any] = {"save_all": True, "append_images": images[1:], "loop": 0}
    options["comment"] = identity.text()
    options["duration"] = [FRAME_MS] * (len(images) - 1) + [LAST_FRAME_MS]
    files.write_atomically(path, lambda file: images[0].save(file, format="GIF", **options))


@contextlib.contextmanager
def headless() -> Iterator[None]:
    """Keep pygame from looking for a screen and sound."""
    settings = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    settings["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
    saved = {name: os.environ[name] for name in settings if name in os.environ}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(saved)


def _make_artist(axes: Axes, states: list[Any], obs: ndarray, config: Config) -> Update:
    """Draw the first state, and return the function that draws another in its place."""
    name = getattr(config.env, "name", None)
    if name in CLASSIC:
        if all(importlib.util.find_spec(package) for package in ("gymnasium", "pygame")):
            return _classic(axes, states, config)
        warnings.warn(
            "pygame is not installed, so the observations are drawn; for pictures install "
            "purerl[render].",
            stacklevel=4,
        )
    if name in MAZES:
        return _maze(axes, states, config)
    if name == "PointRobot-misc":
        return _point_robot(axes, states, config)
    if obs.ndim in (3, 4) and min(obs.shape[1:3]) > 1:
        return _image(axes, obs)
    return _lines(axes, obs.reshape(len(obs), -1), config)


def _classic(axes: Axes, states: list[Any], config: Config) -> Update:
    from gymnax.visualize.vis_gym import init_gym, update_gym

    axes.set_axis_off()
    image = init_gym(axes, config.env, states[0], config.env_params)
    return lambda i: update_gym(image, config.env, states[i], config.env_params)


def _maze(axes: Axes, states: list[Any], config: Config) -> Update:
    env: Any = config.env
    axes.imshow(env.occupied_map, cmap="Greys", vmax=1.4)
    style: dict[str, Any] = {"markersize": 14, "linestyle": ""}
    goal, agent = (axes.plot([0], [0], marker, **style)[0] for marker in ("g*", "ro"))
    axes.set(xticks=[], yticks=[])

    def update(i: int) -> None:
        for marker, cell in ((goal, states[i].goal), (agent, states[i].pos)):
            marker.set_data([cell[1]], [cell[0]])

    return update


def _point_robot(axes: Axes, states: list[Any], config: Config) -> Update:
    angles = np.linspace(0, np.pi, 100)
    axes.plot(np.cos(angles), np.sin(angles), color="black", linewidth=1)
    goal = Circle((0, 0), float(config.env_params.goal_radius), alpha=0.3)
    agent = Circle((0, 0), 0.04, color="red")
    axes.add_patch(goal)
    axes.add_patch(agent)
    axes.set(xlim=(-1.3, 1.3), ylim=(-0.3, 1.3), aspect="equal", xticks=[], yticks=[])

    def update(i: int) -> None:
        goal.center = tuple(np.asarray(states[i].goal))
        agent.center = tuple(np.asarray(states[i].pos))

    return update


def _image(axes: Axes, obs: Float[ndarray, "frames height width ..."]) -> Update:
    """The channels of an observation in one picture: each has its own shade, the last on top."""
    channels = obs.shape[-1] if obs.ndim == 4 else 1
    shades = np.arange(1, channels + 1)
    images = np.max(obs.reshape(*obs.shape[:3], channels) * shades, axis=-1)
    bright = colormaps["viridis"](np.linspace(0.25, 1, 255))  # without its dark end
    colors = "gray" if channels == 1 else ListedColormap([(0.0, 0.0, 0.0, 1.0), *bright])
    low, high = min(0.0, float(images.min())), max(1e-6, float(images.max()))
    picture = axes.imshow(images[0], cmap=colors, vmin=low, vmax=high)
    axes.set_axis_off()
    return lambda i: picture.set_data(images[i])


def _lines(axes: Axes, obs: Float[ndarray, "frames numbers"], config: Config) -> Update:
    """Each number of the observation as a line over the steps, marked at the current one."""
    steps = np.arange(len(obs))
    for k, column in enumerate(obs.T):
        axes.plot(steps, column, linewidth=1, label=f"obs[{k}]" if k < MAX_LABELS else None)
    cursor = axes.axvline(0, color="black", linewidth=1)
    dots = axes.plot(np.zeros(obs.shape[1]), obs[0], "ko", markersize=3)[0]
    axes.set(xlabel="step", ylabel="observation")
    axes.set_position((0.17, 0.25, 0.78, 0.65))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)

    def update(i: int) -> None:
        cursor.set_xdata([i, i])
        dots.set_data(np.full(obs.shape[1], i), obs[i])

    return update
