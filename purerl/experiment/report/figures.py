"""Figures of learning curves, sweeps and comparisons, and histograms of final returns."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from purerl.experiment.report.comparison import ComparedRun
from purerl.experiment.report.curves import EpisodeCurve, episode_curve
from purerl.experiment.report.format import format_number
from purerl.experiment.report.statistics import MIN_SEEDS, drop_nan, iqm
from purerl.experiment.store import files
from purerl.experiment.store.identity import MARK, Identity

DPI = 160
LAYOUT: Final = "constrained"
COLOR = "#0b4f9c"
SINGLE = "#a0a0a0"
MUTED = "#555555"
# Okabe and Ito's colours, which the colour-blind can tell apart; further runs are dashed.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MAX_COLORED = 8  # settings of a sweep that have a colour of their own
MAX_THIN_LINES = 500  # of single seeds: more would be a surface
MAX_POINTS = 200  # of a curve: each is bootstrapped, and more cannot be seen
METADATA = {"png": MARK, "pdf": "Keywords", "svg": "Source"}  # what holds an identity, by suffix
MAX_TICK_LETTERS = 24  # of all names: more do not fit side by side below an axis


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """Within this, figures look as matplotlib makes them, whatever the user's matplotlibrc says."""
    defaults = dict(matplotlib.rcParamsDefault)
    del defaults["backend"]  # a figure is saved without it, and it could not be put back
    with matplotlib.rc_context(defaults):
        yield


def save_figure(figure: Figure, path: Path, *identities: Identity | None) -> None:
    """Write a figure whole or not at all, in the format of the suffix.

    Where the format has room for it, its metadata say whose it is.
    """
    suffix = path.suffix[1:]
    told = " ".join(identity.text() for identity in identities if identity is not None)
    name = METADATA.get(suffix.lower())
    metadata = {name: told} if told and name else None
    files.write_atomically(
        path, lambda file: figure.savefig(file, format=suffix, metadata=metadata)
    )


def require_figure_name(name: str, path: Path) -> None:
    """Refuse a path whose suffix is no format of a figure."""
    if path.suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
        raise ValueError(f"{name} = {str(path)!r} must end in .png, .pdf or .svg.")


def learning_curve(
    env_steps: Float[ndarray, " records"],
    episode_return: Float[ndarray, "seeds records"],
    num_episodes: Int[ndarray, "seeds records"],
    *,
    title: str,
    target_return: float | None = None,
) -> Figure:
    """The IQM of the episode return over seeds with its 95% interval, and thin lines for seeds.

    The first `MAX_THIN_LINES` seeds have a line. The curve is that of `episode_curve`, of
    `MAX_POINTS` points or fewer; the IQM begins where every seed has a return.
    """
    curve = episode_curve(episode_return, num_episodes, max_points=MAX_POINTS)
    env_steps, num_seeds = env_steps[curve.records], len(curve.seeds)
    figure = Figure(figsize=(7.2, 4.4), dpi=DPI, layout=LAYOUT)
    axes = figure.subplots()
    label = f"IQM of {num_seeds} seeds" if num_seeds > 1 else "1 seed"
    band = {"alpha": 0.35, "label": "95% interval"}
    _iqm_line(axes, env_steps, curve, {"color": COLOR, "label": label}, band)
    if num_seeds > 1 or not curve.is_complete.any():
        num_lines = min(num_seeds, MAX_THIN_LINES)
        thin: dict[str, Any] = {"color": SINGLE, "alpha": _alpha(num_lines), "linewidth": 0.6}
        label = "single seeds" if num_lines == num_seeds else f"{num_lines} of the seeds"
        lines = [np.column_stack([env_steps, single]) for single in curve.seeds[:num_lines]]
        axes.add_collection(LineCollection(lines, **thin, label=label, zorder=2))
        axes.autoscale_view()
    _style_axes(axes, title, target_return)
    _legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _alpha(num_seeds: int) -> float:
    """How opaque the line of one seed is among so many."""
    return float(np.clip(3.5 / np.sqrt(max(1, num_seeds)), 0.3, 0.9))


def sweep_curves(
    env_steps: Float[ndarray, " records"],
    episode_return: Sequence[Float[ndarray, "_ records"]],
    num_episodes: Sequence[Int[ndarray, "_ records"]],
    labels: Sequence[str],
    *,
    title: str,
    target_return: float | None = None,
) -> Figure:
    """The IQM over seeds of the episode return, one line a setting.

    The first `MAX_COLORED` settings have a colour and a label; the others are grey. A setting
    without seeds has no line.
    """
    num_colors = min(len(labels), MAX_COLORED)
    height = 4.4 + 0.18 * num_colors  # the legend stands below
    figure = Figure(figsize=(7.2, height), dpi=DPI, layout=LAYOUT)
    axes = figure.subplots()
    colors = colormaps["viridis"](np.linspace(0, 0.9, num_colors))
    for i in reversed(range(len(labels))):
        curve = episode_curve(episode_return[i], num_episodes[i], max_points=MAX_POINTS)
        line: dict[str, Any] = {"color": "#bbbbbb", "linewidth": 0.8, "zorder": 2}
        if i < MAX_COLORED:
            line |= {"color": colors[i], "linewidth": 1.8, "label": labels[i]}
        _iqm_line(axes, env_steps[curve.records], curve, line)
    _style_axes(axes, title, target_return)
    axes.set_ylabel("episode return (sampled actions), IQM over seeds")
    _legend(figure, axes.get_legend_handles_labels()[0][::-1], ncols=1, fontsize=8.0)
    return figure


def comparison(compared: Sequence[ComparedRun]) -> Figure:
    """Runs side by side: their learning curves on the left, their final returns on the right.

    Curves are the IQM over seeds with its 95% interval. On the right stand the IQM with its
    interval, and a dot for each seed.
    """
    figure = Figure(figsize=(10, 4.6), dpi=DPI, layout=LAYOUT)
    axes, final_axes = figure.subplots(1, 2, width_ratios=(2, 1), sharey=True)
    jitter = np.random.default_rng(0)
    for i, compared_run in enumerate(compared):
        color, dashes = PALETTE[i % len(PALETTE)], "--" if i >= len(PALETTE) else "-"
        _compared_curve(axes, compared_run, {"color": color, "linestyle": dashes})
        returns = drop_nan(compared_run.run.returns)
        x = i + jitter.uniform(-0.2, 0.2, len(returns))
        final_axes.plot(x, returns, ".", color=color, alpha=0.45, markersize=6, markeredgewidth=0)
        value, low, high = (float(np.asarray(bound)) for bound in compared_run.statistics.iqm)
        whiskers = np.nan_to_num([[value - low], [high - value]])
        final_axes.errorbar(
            [i + 0.34], [value], whiskers, fmt="o", color=color, markersize=5, capsize=3, zorder=4
        )
    first = compared[0].run
    targets = {compared_run.run.target_return for compared_run in compared}
    target = first.target_return if len(targets) == 1 else None
    is_unlike = any(compared_run.differences for compared_run in compared)
    _style_axes(axes, f"{first.env}, unlike runs" if is_unlike else first.env, target)
    interval = Patch(color=MUTED, alpha=0.3, linewidth=0, label="95% interval")
    _legend(figure, [*axes.get_legend_handles_labels()[0], interval])
    names = [compared_run.name for compared_run in compared]
    is_wide = sum(map(len, names)) > MAX_TICK_LETTERS
    slant: dict[str, Any] = {"rotation": 20, "ha": "right"} if is_wide else {}
    final_axes.set_xticks(range(len(names)), names, fontsize=9, **slant, parse_math=False)
    final_axes.set_xlim(-0.6, len(names) - 0.4)
    _target_line(final_axes.axhline, target)
    final_axes.set_ylabel(first.return_name)
    final_axes.set_title("at the end: seeds and IQM", loc="left", fontsize=11)
    final_axes.tick_params(labelleft=True)
    _grid(final_axes, "y")
    return figure


def _compared_curve(axes: Axes, compared: ComparedRun, style: dict[str, Any]) -> None:
    run, alive = compared.run, compared.run.arrays["failed_at"] < 0
    env_steps = run.arrays["record_updates"] * float(run.env_steps_per_update)
    returns, counts = (run.arrays[name][alive] for name in ("episode_return", "num_episodes"))
    curve = episode_curve(returns, counts, max_points=MAX_POINTS)
    # matplotlib hides a label that begins with an underscore.
    space = " " * compared.name.startswith("_")
    label = f"{space}{compared.name}, IQM of {len(curve.seeds)} seeds"
    _iqm_line(axes, env_steps[curve.records], curve, {"label": label, **style}, {"alpha": 0.3})


def _iqm_line(
    axes: Axes,
    x: Float[ndarray, " points"],
    curve: EpisodeCurve,
    line: dict[str, Any],
    band: dict[str, Any] | None = None,
) -> None:
    """Draw the IQM over seeds, from where every seed has a return.

    `line` is its style, `band` that of its 95% interval; without `band` no interval is drawn.
    """
    complete = curve.is_complete
    if not len(curve.seeds) or not complete.any():
        return
    axes.plot(x[complete], curve.iqm[complete], **{"linewidth": 2, "zorder": 4, **line})
    if band is not None and len(curve.seeds) >= MIN_SEEDS:
        _, low, high = curve.interval()
        style = {"color": line["color"], "linewidth": 0, "zorder": 3, **band}
        axes.fill_between(x[complete], low[complete], high[complete], **style)


def histogram(
    returns: Float[ndarray, " seeds"], *, title: str, xlabel: str, target_return: float | None
) -> Figure:
    """The histogram of the returns, with a tick for each seed, and their IQM."""
    returns = drop_nan(returns)
    figure = Figure(figsize=(7.2, 3.4), dpi=DPI, layout=LAYOUT)
    axes = figure.subplots()
    if returns.size:
        spread = max(float(np.ptp(returns)), 5e-2 * max(1.0, float(np.abs(returns).max())))
        middle = (returns.max() + returns.min()) / 2
        bounds = (middle - 0.55 * spread, middle + 0.55 * spread)
        # Odd, so that equal returns fill one bin, in the middle.
        bins = int(np.clip(2 * np.sqrt(returns.size), 5, 24)) | 1
        axes.hist(returns, bins=bins, range=bounds, color=COLOR, alpha=0.6, edgecolor="white")
        ticks: dict[str, Any] = {"color": "black", "markersize": 9, "alpha": _alpha(returns.size)}
        ticks["transform"] = axes.get_xaxis_transform()
        axes.plot(returns, np.full(returns.size, 0.025), "|", **ticks, label="single seeds")
        axes.axvline(float(iqm(returns)), color="black", linewidth=1.6, label="IQM")
    _target_line(axes.axvline, target_return)
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    axes.set(xlabel=xlabel, ylabel="seeds")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _grid(axes, "y")
    _legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _style_axes(axes: Axes, title: str, target_return: float | None) -> None:
    """Set the title, labels and grid of a learning curve, and draw its target."""
    _target_line(axes.axhline, target_return)
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)  # a name may hold dollars
    axes.set(xlabel="environment steps of one seed", ylabel="episode return (sampled actions)")
    axes.xaxis.set_major_formatter(lambda value, _: format_number(value))
    axes.margins(x=0.01)
    _grid(axes, "both")


def _target_line(line: Any, target_return: float | None) -> None:
    if target_return is None:
        return
    label = f"target {target_return:g}".replace("-", "\N{MINUS SIGN}")  # as matplotlib sets it
    line(target_return, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=label, zorder=2.5)


def _grid(axes: Axes, axis: Any) -> None:
    axes.grid(axis=axis, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(
    figure: Figure, handles: Sequence[Any], *, ncols: int = 4, fontsize: float = 8.5
) -> None:
    """Draw the legend below the axes, where it covers nothing; names are shown as they are."""
    if not handles:
        return
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": ncols, "frameon": False}
    for text in figure.legend(handles=handles, fontsize=fontsize, **place).get_texts():
        text.set_parse_math(False)
