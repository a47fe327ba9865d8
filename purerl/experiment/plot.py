"""Figures of a run: learning curves over seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from purerl.experiment.statistics import fill_forward, iqm, iqm_interval
from purerl.experiment.words import short

COLOR = "#3465a4"
MUTED = "#666666"
COLORED = 8  # settings of a sweep that have a colour of their own
POINTS = 200  # of a curve, at most: more cannot be seen, and each is bootstrapped


def learning_curve(
    env_steps: Float[ndarray, " records"],
    episode_return: Float[ndarray, "seeds records"],
    *,
    title: str,
    target_return: float | None = None,
) -> Figure:
    """The IQM of the episode return over seeds with its 95% interval, and a thin line a seed.

    A record in which no episode of a seed ended shows that seed's last return before it; the IQM
    begins where every seed has one. Of a long run, each point is the mean of several records.
    """
    env_steps, curves = thinned(env_steps, fill_forward(np.asarray(episode_return, float)))
    num_seeds = len(curves)
    figure = Figure(figsize=(7.2, 4.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    for i, curve in enumerate(curves):
        label = "single seeds" if i == 0 and num_seeds > 1 else None
        axes.plot(env_steps, curve, color=COLOR, alpha=0.16, linewidth=0.6, label=label)
    complete = ~np.isnan(curves).any(axis=0)
    if num_seeds and complete.any():
        middle, low, high = iqm_interval(curves[:, complete])
        x = env_steps[complete]
        label = f"IQM of {num_seeds} seeds" if num_seeds > 1 else "1 seed"
        axes.plot(x, middle, color=COLOR, linewidth=2, label=label)
        if num_seeds > 1:
            axes.fill_between(
                x, low, high, color=COLOR, alpha=0.3, linewidth=0, label="95% interval"
            )
    _finish(axes, title, target_return)
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(loc="best", frameon=False, fontsize=9)
        for handle in legend.get_lines():
            handle.set_alpha(1)
    return figure


def sweep_curves(
    env_steps: Float[ndarray, " records"],
    episode_return: Float[ndarray, "settings seeds records"],
    labels: Sequence[str],
    *,
    title: str,
    target_return: float | None = None,
) -> Figure:
    """The IQM over seeds of the episode return, one line a setting, the first settings in colour.

    The first `COLORED` settings have a colour and a label each; the others are grey.
    """
    height = 4.4 + 0.18 * min(len(labels), COLORED)  # the legend stands below
    figure = Figure(figsize=(7.2, height), dpi=160, layout="constrained")
    axes = figure.subplots()
    colors = colormaps["viridis"](np.linspace(0, 0.9, min(len(labels), COLORED)))
    for i in reversed(range(len(labels))):
        x, curves = thinned(env_steps, fill_forward(np.asarray(episode_return[i], float)))
        complete = ~np.isnan(curves).any(axis=0)
        style: dict[str, Any] = {"color": "#bbbbbb", "linewidth": 0.8}
        if i < COLORED:
            style = {"color": colors[i], "linewidth": 1.8, "label": labels[i]}
        if complete.any():
            axes.plot(x[complete], iqm(curves[:, complete]), **style)
    _finish(axes, title, target_return)
    axes.set_ylabel("episode return (sampled actions), IQM over seeds")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], names[::-1], loc="outside lower center", ncols=1, frameon=False, fontsize=8
    )
    return figure


def _finish(axes: Axes, title: str, target_return: float | None) -> None:
    """What every figure of returns has: target, labels and grid."""
    if target_return is not None:
        axes.axhline(
            target_return,
            color=MUTED,
            linewidth=1,
            linestyle=(0, (4, 3)),
            label=f"target {target_return:g}",
        )
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("environment steps of one seed")
    axes.set_ylabel("episode return (sampled actions)")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.margins(x=0.01)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def thinned(
    x: Float[ndarray, " records"], curves: Float[ndarray, "seeds records"]
) -> tuple[Float[ndarray, " points"], Float[ndarray, "seeds points"]]:
    """Curves of at most `POINTS` points, each the mean of a bin of records, at the bin's last x."""
    bins = np.array_split(np.arange(len(x)), min(len(x), POINTS))
    middle = [curves[:, each].mean(axis=1) for each in bins]
    return x[[each[-1] for each in bins]], np.stack(middle, axis=1)
