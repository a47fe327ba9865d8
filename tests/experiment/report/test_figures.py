"""Figures."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from purerl.experiment.report.figures import THIN_LINES, histogram, learning_curve


def test_histogram_of_equal_and_of_missing_returns():
    figure = histogram(np.array([500.0, 500.0, np.nan]), title="", xlabel="", target_return=475.0)
    heights = [patch.get_height() for patch in figure.axes[0].patches]  # type: ignore
    assert sum(heights) == heights[len(heights) // 2] == 2
    histogram(np.array([np.nan]), title="", xlabel="", target_return=None)


@pytest.mark.parametrize("num_seeds", [1, 2, 300, 3000])
def test_the_interval_and_the_iqm_lie_on_the_single_seeds(num_seeds):
    curves = np.random.default_rng(0).normal(size=(num_seeds, 5))
    figure = learning_curve(np.arange(5.0), curves, title="", target_return=-80.0)
    axes = figure.axes[0]
    single = [each for each in axes.collections if isinstance(each, LineCollection)]
    drawn = [len(each.get_segments()) for each in single]
    assert drawn == ([min(num_seeds, THIN_LINES)] if num_seeds > 1 else [])
    (iqm,) = [line for line in axes.lines if "seed" in str(line.get_label())]
    bands = [each for each in axes.collections if each not in single]
    assert len(bands) == (num_seeds > 1)
    for band in bands:
        assert single[0].get_zorder() < band.get_zorder() < iqm.get_zorder()
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "target −80" in labels
    assert ("500 of the seeds" in labels) == (num_seeds == 3000)
    low, high = axes.get_ylim()
    assert low <= curves[:THIN_LINES].min()
    assert high >= curves[:THIN_LINES].max()


def test_single_seeds_are_drawn_from_their_first_episode_on():
    curves = np.array([[np.nan, 1.0, 9.0], [2.0, 3.0, 4.0]])
    axes = learning_curve(np.arange(3.0), curves, title="").axes[0]
    (single,) = [each for each in axes.collections if isinstance(each, LineCollection)]
    np.testing.assert_array_equal([each[:, 1] for each in single.get_segments()][1], curves[1])
    assert axes.get_ylim()[0] <= 1
    assert axes.get_ylim()[1] >= 9
