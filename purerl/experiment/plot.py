"""Figures: learning curves over seeds, sweeps, comparisons, and how final returns spread."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from purerl.experiment.saved import Compared
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


def comparison(compared: Sequence[Compared]) -> Figure:
    """Runs side by side: their learning curves, and the returns that they ended with.

    Each curve is the IQM over seeds with its 95% interval; at the right the IQM of the final
    returns, and a dot for each seed.
    """
    figure = Figure(figsize=(10, 4.4), dpi=160, layout="constrained")
    axes, ends = figure.subplots(1, 2, width_ratios=(2, 1))
    colors = colormaps["viridis"](np.linspace(0, 0.85, len(compared)))
    spread = np.random.default_rng(0)
    for i, (each, color) in enumerate(zip(compared, colors, strict=True)):
        run, alive = each.run, each.run.arrays["failed_at"] < 0
        env_steps = run.arrays["record_updates"] * float(run.env_steps_per_update)
        returns = np.asarray(run.arrays["episode_return"][alive], float)
        x, curves = thinned(env_steps, fill_forward(returns))
        complete = ~np.isnan(curves).any(axis=0)
        label = f"{run.directory.name} ({len(curves)} seeds)"
        if complete.any():
            middle, low, high = iqm_interval(curves[:, complete])
            axes.plot(x[complete], middle, color=color, linewidth=2, label=label)
            axes.fill_between(x[complete], low, high, color=color, alpha=0.25, linewidth=0)
        place = i + spread.uniform(-0.18, 0.18, len(run.known))
        ends.plot(place, run.known, ".", color=color, alpha=0.35, markersize=5)
        value, low, high = (float(np.asarray(bound)) for bound in each.iqm)
        whiskers = np.nan_to_num([[value - low], [high - value]])
        ends.errorbar([i], [value], whiskers, fmt="_", color=color, markersize=22, capsize=5)
    _finish(axes, compared[0].run.env, compared[0].run.target_return)
    axes.legend(loc="best", frameon=False, fontsize=9)
    names = [each.run.directory.name for each in compared]
    ends.set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=9)
    ends.set_xlim(-0.6, len(names) - 0.4)
    ends.set_title("final return, IQM [95%]", loc="left", fontsize=11)
    ends.grid(axis="y", color="#dddddd", linewidth=0.6)
    ends.spines[["top", "right"]].set_visible(False)
    return figure


def histogram(
    returns: Float[ndarray, " seeds"], *, title: str, xlabel: str, target_return: float | None
) -> Figure:
    """How the returns of the seeds are spread, with their IQM; NaN are left out."""
    known = returns[~np.isnan(returns)]
    figure = Figure(figsize=(7.2, 3.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    if known.size:
        spread = max(float(np.ptp(known)), 1e-3 * max(1.0, float(np.abs(known).max())))
        middle = (known.max() + known.min()) / 2
        bounds = (middle - 0.55 * spread, middle + 0.55 * spread)
        axes.hist(known, bins=24, range=bounds, color=COLOR, alpha=0.75)
        axes.axvline(float(iqm(known)), color="black", linewidth=1.4, label="IQM")
    if target_return is not None:
        style: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 3))}
        axes.axvline(target_return, **style, label=f"target {target_return:g}")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("seeds")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", frameon=False, fontsize=9)
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
