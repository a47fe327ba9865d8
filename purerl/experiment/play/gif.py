"""An episode as a GIF: drawn by gymnax where it can, else its observations."""

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

from purerl.config.config import Config
from purerl.experiment.store import files
from purerl.experiment.store.header import env_name

FRAMES = 200  # of a GIF, at most
FRAME, LAST_FRAME = 80, 1500  # milliseconds that one is shown
LABELLED = 8  # lines of a drawing that are named, at most

Update = Callable[[int], None]
CLASSIC = (  # drawn by gymnax with what gymnasium and pygame have
    *("Acrobot-v1", "CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
)
MAZES = ("FourRooms-misc", "MetaMaze-misc")


def make_film(
    states: list[Any],
    obs: Float[ndarray, "frames ..."],
    episode_return: Float[ndarray, " frames"],
    config: Config,
    path: Path,
) -> None:
    """Draw the states of an episode, each with the return before it, into a GIF."""
    last = len(states) - 1
    shown = [*range(0, last, -(-len(states) // FRAMES)), last]
    figure = Figure(figsize=(5, 4.6), dpi=100)
    canvas = FigureCanvasAgg(figure)  # whatever backend the program around this uses
    axes = figure.add_axes((0.13, 0.11, 0.82, 0.79))
    title = axes.set_title("", loc="left", fontsize=11)
    images = []
    with _no_screen():
        update = _scene(axes, states, obs, config)
        for i in shown:
            update(i)
            title.set_text(
                f"{env_name(config)}: step {i} of {last}, return {episode_return[i]:.2f}"
            )
            canvas.draw()
            picture = Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])
            images.append(picture.quantize(128))
    film: dict[str, Any] = {"save_all": True, "append_images": images[1:], "loop": 0}
    film["duration"] = [FRAME] * (len(images) - 1) + [LAST_FRAME]
    files.write_whole(path, lambda file: images[0].save(file, format="GIF", **film))


@contextlib.contextmanager
def _no_screen() -> Iterator[None]:
    """Let pygame look for no screen and no sound, for as long as it draws."""
    names = {
        "SDL_VIDEODRIVER": "dummy",
        "SDL_AUDIODRIVER": "dummy",
        "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _scene(axes: Axes, states: list[Any], obs: ndarray, config: Config) -> Update:
    """Draw the first state; what it returns draws another in its place."""
    name = getattr(config.env, "name", None)
    if name in CLASSIC:
        if all(importlib.util.find_spec(each) for each in ("gymnasium", "pygame")):
            return _classic(axes, states, config)
        warnings.warn(
            "the observations are drawn, for want of pygame; for pictures install purerl[render].",
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
    axes.set_xticks([])
    axes.set_yticks([])

    def update(i: int) -> None:
        for drawn, place in ((goal, states[i].goal), (agent, states[i].pos)):
            drawn.set_data([place[1]], [place[0]])

    return update


def _point_robot(axes: Axes, states: list[Any], config: Config) -> Update:
    angles = np.linspace(0, np.pi, 100)
    axes.plot(np.cos(angles), np.sin(angles), color="black", linewidth=1)
    goal = Circle((0, 0), float(config.env_params.goal_radius), alpha=0.3)
    agent = Circle((0, 0), 0.04, color="red")
    for drawn in (goal, agent):
        axes.add_patch(drawn)
    axes.set(xlim=(-1.3, 1.3), ylim=(-0.3, 1.3), aspect="equal", xticks=[], yticks=[])

    def update(i: int) -> None:
        goal.center = tuple(np.asarray(states[i].goal))
        agent.center = tuple(np.asarray(states[i].pos))

    return update


def _image(axes: Axes, obs: Float[ndarray, "frames height width ..."]) -> Update:
    """Channels as one picture: each has its own shade, the last lies on top."""
    channels = obs.shape[-1] if obs.ndim == 4 else 1
    shades = np.arange(1, channels + 1)
    images = np.max(obs.reshape(*obs.shape[:3], channels) * shades, axis=-1)
    colors = "gray" if channels == 1 else _black_and("viridis")
    bounds: dict[str, Any] = {
        "vmin": min(0.0, float(images.min())),
        "vmax": max(1e-6, float(images.max())),
    }
    shown = axes.imshow(images[0], cmap=colors, **bounds)
    axes.set_axis_off()
    return lambda i: shown.set_data(images[i])


def _black_and(name: str) -> ListedColormap:
    """A colour map without its dark end, on black."""
    return ListedColormap([(0.0, 0.0, 0.0, 1.0), *colormaps[name](np.linspace(0.25, 1, 255))])


def _lines(axes: Axes, obs: Float[ndarray, "frames numbers"], config: Config) -> Update:
    """Each number of the observation as a line over the steps, marked at the present one."""
    steps = np.arange(len(obs))
    for k, column in enumerate(obs.T):
        axes.plot(steps, column, linewidth=1, label=f"obs[{k}]" if k < LABELLED else None)
    now = axes.axvline(0, color="black", linewidth=1)
    dots = axes.plot(np.zeros(obs.shape[1]), obs[0], "ko", markersize=3)[0]
    axes.set_xlabel("step")
    axes.set_ylabel("observation")
    axes.set_position((0.17, 0.25, 0.78, 0.65))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)

    def update(i: int) -> None:
        now.set_xdata([i, i])
        dots.set_data(np.full(obs.shape[1], i), obs[i])

    return update
