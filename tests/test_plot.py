"""Figures."""

import numpy as np
import pytest

from purerl.experiment.plot import histogram, learning_curve


def test_histogram_of_equal_and_of_missing_returns():
    figure = histogram(np.array([500.0, 500.0, np.nan]), title="", xlabel="", target_return=475.0)
    heights = [patch.get_height() for patch in figure.axes[0].patches]  # type: ignore
    assert sum(heights) == heights[len(heights) // 2] == 2
    histogram(np.array([np.nan]), title="", xlabel="", target_return=None)


@pytest.mark.parametrize("num_seeds", [1, 2, 300])
def test_the_interval_and_the_iqm_lie_on_the_single_seeds(num_seeds):
    curves = np.random.default_rng(0).normal(size=(num_seeds, 5))
    figure = learning_curve(np.arange(5.0), curves, title="", target_return=-80.0)
    axes = figure.axes[0]
    single = [line for line in axes.lines if line.get_color() == "#a0a0a0"]
    assert len(single) == (num_seeds if num_seeds > 1 else 0)
    (iqm,) = [line for line in axes.lines if "seed" in str(line.get_label()) and line not in single]
    bands = axes.collections
    assert len(bands) == (num_seeds > 1)
    for band in bands:
        assert max(line.get_zorder() for line in single) < band.get_zorder() < iqm.get_zorder()
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "target −80" in labels
