"""Figures: learning curves over seeds, sweeps, comparisons, and how final returns spread."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from purerl.experiment.report.comparison import Compared
from purerl.experiment.report.format import short, with_minus
from purerl.experiment.report.statistics import curve_interval, fill_forward, iqm, known
from purerl.experiment.store import files

COLOR = "#0b4f9c"
SINGLE = "#a0a0a0"
MUTED = "#555555"
# Okabe and Ito's, told apart by the colour-blind too; the runs beyond are dashed.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
COLORED = 8  # settings of a sweep that have a colour of their own
THIN_LINES = 500  # of single seeds, at most: more are a surface
POINTS = 200  # of a curve, at most: more cannot be seen, and each is bootstrapped
TICK_LETTERS = 24  # of names that fit side by side below an axis


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all, in the format that the name says."""
    files.write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:]))


def require_figure_name(name: str, path: Path) -> None:
    """Refuse a name that says no format of a figure."""
    if path.suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
        raise ValueError(f"{name} = {str(path)!r} must end in .png, .pdf or .svg.")


def learning_curve(
    env_steps: Float[ndarray, " records"],
    episode_return: Float[ndarray, "seeds records"],
    *,
    title: str,
    target_return: float | None = None,
) -> Figure:
    """The IQM of the episode return over seeds with its 95% interval, and a thin line a seed.

    Of more than `THIN_LINES` seeds, the first so many have a line.

    A record in which no episode of a seed ended shows that seed's last return before it; the IQM
    begins where every seed has one. Of a long run, each point is the mean of several records.
    """
    env_steps, curves = thinned(env_steps, fill_forward(np.asarray(episode_return, float)))
    num_seeds = len(curves)
    figure = Figure(figsize=(7.2, 4.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    complete = ~np.isnan(curves).any(axis=0)
    if num_seeds and complete.any():
        middle, low, high = curve_interval(curves[:, complete])
        x = env_steps[complete]
        label = f"IQM of {num_seeds} seeds" if num_seeds > 1 else "1 seed"
        axes.plot(x, middle, color=COLOR, linewidth=2, label=label, zorder=4)
        if num_seeds > 1:
            band: dict[str, Any] = {"color": COLOR, "alpha": 0.35, "linewidth": 0}
            axes.fill_between(x, low, high, **band, label="95% interval", zorder=3)
    if num_seeds > 1 or not complete.any():
        shown = curves[:THIN_LINES]
        thin: dict[str, Any] = {"color": SINGLE, "alpha": _alpha(len(shown)), "linewidth": 0.6}
        label = "single seeds" if len(shown) == num_seeds else f"{len(shown)} of the seeds"
        lines = [np.column_stack([env_steps, curve]) for curve in shown]
        axes.add_collection(LineCollection(lines, **thin, label=label, zorder=2))
        axes.autoscale_view()
    _finish(axes, title, target_return)
    _legend(figure, axes)
    return figure


def _alpha(num_seeds: int) -> float:
    """How opaque the line of one seed is among so many."""
    return float(np.clip(3.5 / np.sqrt(max(1, num_seeds)), 0.3, 0.9))


def sweep_curves(
    env_steps: Float[ndarray, " records"],
    episode_return: Sequence[Float[ndarray, "_ records"]],
    labels: Sequence[str],
    *,
    title: str,
    target_return: float | None = None,
) -> Figure:
    """The IQM over seeds of the episode return, one line a setting, the first settings in colour.

    The first `COLORED` settings have a colour and a label each; the others are grey. A setting
    without seeds has no line.
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
        if len(curves) and complete.any():
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
    figure = Figure(figsize=(10, 4.6), dpi=160, layout="constrained")
    axes, ends = figure.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    spread = np.random.default_rng(0)
    for i, each in enumerate(compared):
        color, dashes = PALETTE[i % len(PALETTE)], "--" if i >= len(PALETTE) else "-"
        _compared_curve(axes, each, {"color": color, "linestyle": dashes})
        returns = known(each.run.returns)
        place = i + spread.uniform(-0.2, 0.2, len(returns))
        ends.plot(place, returns, ".", color=color, alpha=0.45, markersize=6, markeredgewidth=0)
        value, low, high = (float(np.asarray(bound)) for bound in each.figures.iqm)
        whiskers = np.nan_to_num([[value - low], [high - value]])
        ends.errorbar(
            [i + 0.34], [value], whiskers, fmt="o", color=color, markersize=5, capsize=3, zorder=4
        )
    first = compared[0].run
    same_target = len({each.run.target_return for each in compared}) == 1
    target = first.target_return if same_target else None
    _finish(axes, first.env, target)
    _legend(figure, axes, Patch(color=MUTED, alpha=0.3, linewidth=0, label="95% interval"))
    names = [each.name for each in compared]
    long = sum(map(len, names)) > TICK_LETTERS
    slant: dict[str, Any] = {"rotation": 20, "ha": "right"} if long else {}
    ends.set_xticks(range(len(names)), names, fontsize=9, **slant)
    ends.set_xlim(-0.6, len(names) - 0.4)
    if target is not None:
        _target(ends.axhline, target)
    ends.set_ylabel(first.kind)
    ends.set_title("at the end: seeds, IQM [95% interval]", loc="left", fontsize=11)
    ends.tick_params(labelleft=True)
    _grid(ends, "y")
    return figure


def _compared_curve(axes: Axes, each: Compared, style: dict[str, Any]) -> None:
    run, alive = each.run, each.run.arrays["failed_at"] < 0
    env_steps = run.arrays["record_updates"] * float(run.env_steps_per_update)
    returns = np.asarray(run.arrays["episode_return"][alive], float)
    x, curves = thinned(env_steps, fill_forward(returns))
    complete = ~np.isnan(curves).any(axis=0)
    if complete.any():
        middle, low, high = curve_interval(curves[:, complete])
        label = f"{each.name}, IQM of {len(curves)} seeds"
        axes.plot(x[complete], middle, linewidth=2, label=label, zorder=4, **style)
        band: dict[str, Any] = {"color": style["color"], "alpha": 0.3, "linewidth": 0}
        axes.fill_between(x[complete], low, high, zorder=3, **band)


def histogram(
    returns: Float[ndarray, " seeds"], *, title: str, xlabel: str, target_return: float | None
) -> Figure:
    """How the returns of the seeds are spread, a tick for each, and their IQM."""
    found = known(returns)
    figure = Figure(figsize=(7.2, 3.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    if found.size:
        spread = max(float(np.ptp(found)), 5e-2 * max(1.0, float(np.abs(found).max())))
        middle = (found.max() + found.min()) / 2
        bounds = (middle - 0.55 * spread, middle + 0.55 * spread)
        bins = int(np.clip(2 * np.sqrt(found.size), 5, 24)) | 1  # odd: equal seeds are one, central
        bars: dict[str, Any] = {"color": COLOR, "alpha": 0.6, "edgecolor": "white"}
        axes.hist(found, bins=bins, range=bounds, **bars)
        ticks: dict[str, Any] = {"color": "black", "markersize": 9, "alpha": _alpha(found.size)}
        ticks["transform"] = axes.get_xaxis_transform()
        axes.plot(found, np.full(found.size, 0.025), "|", **ticks, label="single seeds")
        axes.axvline(float(iqm(found)), color="black", linewidth=1.6, label="IQM")
    if target_return is not None:
        _target(axes.axvline, target_return)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("seeds")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _grid(axes, "y")
    _legend(figure, axes)
    return figure


def _finish(axes: Axes, title: str, target_return: float | None) -> None:
    """What every figure of returns has: target, labels and grid."""
    if target_return is not None:
        _target(axes.axhline, target_return)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("environment steps of one seed")
    axes.set_ylabel("episode return (sampled actions)")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.margins(x=0.01)
    _grid(axes, "both")


def _target(line: Any, target_return: float) -> None:
    label = f"target {with_minus(f'{target_return:g}')}"
    line(target_return, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=label, zorder=2.5)


def _grid(axes: Axes, which: Any) -> None:
    axes.grid(axis=which, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Axes, *more: Any) -> None:
    """A legend below the axes, where it covers nothing."""
    handles = [*axes.get_legend_handles_labels()[0], *more]
    if handles:
        place: Any = "outside lower center"
        figure.legend(handles=handles, loc=place, ncols=4, frameon=False, fontsize=8.5)


def thinned(
    x: Float[ndarray, " records"], curves: Float[ndarray, "seeds records"]
) -> tuple[Float[ndarray, " points"], Float[ndarray, "seeds points"]]:
    """Curves of at most `POINTS` points, each the mean of a bin of records, at the bin's last x."""
    bins = np.array_split(np.arange(len(x)), min(len(x), POINTS))
    middle = [curves[:, each].mean(axis=1) for each in bins]
    return x[[each[-1] for each in bins]], np.stack(middle, axis=1)
