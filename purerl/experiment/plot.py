"""Figures of a run: learning curves over seeds."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from purerl.experiment.statistics import fill_forward, iqm_interval

COLOR = "#3465a4"
MUTED = "#666666"


def learning_curve(
    env_steps: Float[ndarray, " records"],
    episode_return: Float[ndarray, "seeds records"],
    *,
    title: str,
    target_return: float | None = None,
) -> Figure:
    """The IQM of the episode return over seeds with its 95% interval, and a thin line a seed.

    A record in which no episode of a seed ended shows that seed's last return before it; the IQM
    begins where every seed has one.
    """
    curves = fill_forward(np.asarray(episode_return, float))
    num_seeds = len(curves)
    figure = Figure(figsize=(7.2, 4.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    for i, curve in enumerate(curves):
        label = "single seeds" if i == 0 and num_seeds > 1 else None
        axes.plot(env_steps, curve, color=COLOR, alpha=0.16, linewidth=0.6, label=label)
    complete = ~np.isnan(curves).any(axis=0)
    if complete.any():
        middle, low, high = iqm_interval(curves[:, complete])
        x = env_steps[complete]
        label = f"IQM of {num_seeds} seeds" if num_seeds > 1 else "1 seed"
        axes.plot(x, middle, color=COLOR, linewidth=2, label=label)
        if num_seeds > 1:
            axes.fill_between(
                x, low, high, color=COLOR, alpha=0.3, linewidth=0, label="95% interval"
            )
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
    axes.xaxis.set_major_formatter(_steps)
    axes.margins(x=0.01)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(loc="best", frameon=False, fontsize=9)
    for handle in legend.get_lines():
        handle.set_alpha(1)
    return figure


def _steps(value: float, _position: float | int) -> str:
    for unit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{suffix}"
    return f"{value:g}"
