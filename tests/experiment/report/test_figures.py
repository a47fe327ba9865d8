"""Figures."""

import matplotlib
import numpy as np
import pytest
from finished import altered
from matplotlib.collections import LineCollection
from matplotlib.image import imread

from purerl.experiment.report.comparison import compare_runs
from purerl.experiment.report.figures import (
    MAX_THIN_LINES,
    comparison,
    default_style,
    histogram,
    learning_curve,
    save_figure,
    sweep_curves,
)


def test_histogram_of_equal_and_of_missing_returns():
    figure = histogram(np.array([500.0, 500.0, np.nan]), title="", xlabel="", target_return=475.0)
    heights = [patch.get_height() for patch in figure.axes[0].patches]  # type: ignore
    assert sum(heights) == heights[len(heights) // 2] == 2
    histogram(np.array([np.nan]), title="", xlabel="", target_return=None)


def once(curves):
    """One episode in each record that has a return."""
    return (~np.isnan(curves)).astype(int)


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 4, 300, 3000])
def test_the_interval_and_the_iqm_lie_on_the_single_seeds(num_seeds):
    curves = np.random.default_rng(0).normal(size=(num_seeds, 5))
    figure = learning_curve(np.arange(5.0), curves, once(curves), title="", target_return=-80.0)
    axes = figure.axes[0]
    single = [each for each in axes.collections if isinstance(each, LineCollection)]
    drawn = [len(each.get_segments()) for each in single]
    assert drawn == ([min(num_seeds, MAX_THIN_LINES)] if num_seeds > 1 else [])
    (iqm,) = [line for line in axes.lines if "seed" in str(line.get_label())]
    bands = [each for each in axes.collections if each not in single]
    assert len(bands) == (num_seeds > 3)
    for band in bands:
        assert single[0].get_zorder() < band.get_zorder() < iqm.get_zorder()
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "target −80" in labels
    assert ("500 of the seeds" in labels) == (num_seeds == 3000)
    low, high = axes.get_ylim()
    assert low <= curves[:MAX_THIN_LINES].min()
    assert high >= curves[:MAX_THIN_LINES].max()


def test_single_seeds_are_drawn_from_their_first_episode_on():
    curves = np.array([[np.nan, 1.0, 9.0], [2.0, 3.0, 4.0]])
    axes = learning_curve(np.arange(3.0), curves, once(curves), title="").axes[0]
    (single,) = [each for each in axes.collections if isinstance(each, LineCollection)]
    np.testing.assert_array_equal([each[:, 1] for each in single.get_segments()][1], curves[1])
    assert axes.get_ylim()[0] <= 1
    assert axes.get_ylim()[1] >= 9


def test_figures_are_saved_in_full_resolution_with_nothing_cut_off(finished, tmp_path):
    other = altered(finished, tmp_path / "ppo", algo="ppo", seed_0=-12_345.6)
    steps, curves = np.arange(5.0) * 1e6, np.random.default_rng(0).normal(size=(4, 5)) * 1e4
    for name, figure in {
        "curve": learning_curve(
            steps, curves, once(curves), title="CartPole-v1", target_return=475.0
        ),
        "sweep": sweep_curves(
            steps, [curves] * 9, [once(curves)] * 9, ["rate = 0.1"] * 9, title="CartPole-v1"
        ),
        "comparison": comparison(compare_runs([finished, other])),
        "histogram": histogram(curves[:, -1], title="a", xlabel="return", target_return=475.0),
    }.items():
        save_figure(figure, tmp_path / f"{name}.png")
        width, height = figure.get_size_inches()
        assert imread(tmp_path / f"{name}.png").shape[:2] == (int(160 * height), int(160 * width))
        for artist in (*figure.axes, *figure.legends):
            box = artist.get_tightbbox()
            assert box is not None
            assert min(box.x0, box.y0) >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1


def texts(figure):
    """All that a figure says in words: titles, ticks and legends."""
    words = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        words += [axes.title, axes._left_title, *axes.get_xticklabels()]
    return words


def test_dollars_and_underscores_in_names_are_shown_as_they_are(finished, tmp_path):
    names = ("_run", "$a_{$", "_$x", r"\frac$")
    runs = [altered(finished, tmp_path / name, env="$\\undefined{$") for name in names]
    figure = comparison(compare_runs(runs))
    save_figure(figure, tmp_path / "figure.png")
    words = {text.get_text().strip() for text in texts(figure)}
    for name in names:
        assert {name, f"{name}, IQM of 4 seeds"} <= words
    assert "$\\undefined{$" in words
    assert "95% interval" in words
    curves = np.zeros((2, 5))
    for figure in (
        learning_curve(np.arange(5.0), curves, once(curves), title="$a_{$"),
        sweep_curves(np.arange(5.0), [curves], [once(curves)], ["$b_{$"], title="$a_{$"),
        histogram(curves[:, 0], title="$a_{$", xlabel="", target_return=None),
    ):
        save_figure(figure, tmp_path / "figure.png")
        assert "$a_{$" in {text.get_text() for text in texts(figure)}


def test_the_default_style_is_matplotlibs_and_the_users_comes_back():
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 17.0}):
        with default_style():
            assert not matplotlib.rcParams["text.usetex"]
            assert matplotlib.rcParams["lines.linewidth"] != 17
        assert matplotlib.rcParams["text.usetex"]
        assert matplotlib.rcParams["lines.linewidth"] == 17
