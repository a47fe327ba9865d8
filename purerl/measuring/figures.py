"""The figure of a bench: steps a second, and memory, over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from purerl.experiment.report.figures import PALETTE, save_figure
from purerl.experiment.report.format import format_number
from purerl.measuring.points import Point
from purerl.measuring.spreads import spread

MEGABYTE = 1e6


def save_bench(points: Sequence[Point], path: Path) -> None:
    """Draw the points that were measured into a file."""
    save_figure(bench_figure(points), path)


def bench_figure(points: Sequence[Point]) -> Figure:
    """Steps a second and memory over seeds, a line for each algorithm and number of envs."""
    measured = [point for point in points if point.failed is None]
    drawing = Figure(figsize=(7.2, 3.1), dpi=200, layout="constrained")
    speed, memory = drawing.subplots(1, 2)
    for i, line in enumerate(dict.fromkeys(map(_line, measured))):
        own = [point for point in measured if _line(point) == line]
        own.sort(key=lambda point: point.seeds)
        style: Any = {"color": PALETTE[i % len(PALETTE)], "linewidth": 1.4, "markersize": 4}
        _speed_line(speed, own, line, style)
        _memory_lines(memory, own, line, style)
    for axes, title in ((speed, "trained env steps per second"), (memory, "peak memory, MB")):
        _style_axes(axes, title, sorted({point.seeds for point in measured}))
    if measured:
        rates = [rate for point in measured for rate in point.steps_per_second or ()]
        ticks = [m * 10**e for e in range(2, 11) for m in (1, 2, 5)]
        lowest, highest = min(rates), max(rates)
        speed.set_yticks([tick for tick in ticks if lowest / 2 <= tick <= highest * 2])
        speed.set_ylim(lowest / 1.6, highest * 1.6)
    speed.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(float(value))))
    memory.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axes in (speed, memory):
        axes.minorticks_off()
        if measured:
            axes.legend(frameon=False, fontsize=7)
    return drawing


def _line(point: Point) -> str:
    """The name of the line that a point belongs to."""
    return f"{point.algo.upper()}, {point.num_envs} envs × {point.rollout_length}"


def _speed_line(axes: Any, points: Sequence[Point], label: str, style: dict[str, Any]) -> None:
    rates = [spread(point.steps_per_second or ()) for point in points]
    below = [rate.median - rate.low for rate in rates]
    above = [rate.high - rate.median for rate in rates]
    seeds, middle = [point.seeds for point in points], [rate.median for rate in rates]
    axes.errorbar(seeds, middle, [below, above], marker="o", capsize=2, label=label, **style)


def _memory_lines(axes: Any, points: Sequence[Point], label: str, style: dict[str, Any]) -> None:
    """What is planned for a device, and what was in use."""
    seeds = [point.seeds for point in points]
    planned = [(point.device_bytes or 0) / MEGABYTE for point in points]
    axes.plot(seeds, planned, marker="o", label=f"{label}: each device", **style)
    in_use = [point.in_use() for point in points]
    found = [each.count / MEGABYTE for each in in_use]
    dashed = style | {"marker": "s", "linestyle": "--", "fillstyle": "none"}
    axes.plot(seeds, found, label=f"{label}: {in_use[0].by}", **dashed)


def _style_axes(axes: Any, title: str, seeds: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xticks(list(seeds))
    axes.set_xlabel("seeds", fontsize=9)
    axes.set_title(title, fontsize=9.5, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
