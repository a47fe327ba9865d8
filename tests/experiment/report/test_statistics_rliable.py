"""Statistics against rliable's."""

import warnings

import numpy as np
import pytest
from scipy import stats

from purerl.experiment.report.statistics import probability_of_improvement, return_statistics


@pytest.fixture(scope="module")
def rliable():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("rliable.library")
        metrics = pytest.importorskip("rliable.metrics")
    return library, metrics


def assert_widened(mine, low, high, count, tolerance):
    """An interval is rliable's, which is too narrow for few seeds, widened on each side."""
    factor = stats.t.ppf(0.975, count - 1) / 1.96 * np.sqrt(count / (count - 1))
    for bound, theirs in ((mine.low, low), (mine.high, high)):
        expected = float(mine.value) + (theirs - float(mine.value)) * factor
        assert abs(float(bound) - expected) < tolerance * (high - low)


def scores(seed, num_seeds=12, shift=0.0):
    """Scores as rliable takes them, `[seeds, tasks]`, of one task."""
    return np.random.default_rng(seed).gamma(2.0, 1.0, (num_seeds, 1)) + shift


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("iqm", "aggregate_iqm"), ("mean", "aggregate_mean")],
)
def test_aggregates_and_their_intervals(ours, theirs, rliable):
    library, metrics = rliable
    x = scores(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points, intervals = library.get_interval_estimates(
            {"x": x}, lambda x: np.array([getattr(metrics, theirs)(x)]), reps=4000
        )
    mine = getattr(return_statistics(x[:, 0]), ours)
    assert float(mine.value) == pytest.approx(float(points["x"][0]))
    low, high = intervals["x"][:, 0]
    assert_widened(mine, low, high, len(x), 0.1)


def test_median_and_its_interval(rliable):
    library, metrics = rliable
    x = scores(1, num_seeds=31)

    def median(x):
        # rliable's is over tasks, of means over seeds: here each seed is a task of one seed.
        return np.array([metrics.aggregate_median(x.T)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points, intervals = library.get_interval_estimates({"x": x}, median, reps=4000)
    mine = return_statistics(x[:, 0]).median
    assert float(mine.value) == pytest.approx(float(points["x"][0]))
    low, high = intervals["x"][:, 0]
    assert_widened(mine, low, high, len(x), 0.1)


def test_probability_of_improvement(rliable):
    library, metrics = rliable
    x, y = scores(2, shift=0.5), scores(3, num_seeds=9)
    x[0, 0] = y[0, 0]  # a tie
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = metrics.probability_of_improvement(x, y)
        _, intervals = library.get_interval_estimates(
            {"x,y": (x, y)},
            lambda x, y: np.array([metrics.probability_of_improvement(x, y)]),
            reps=500,
        )
    mine = probability_of_improvement(x[:, 0], y[:, 0])
    assert float(mine.value) == pytest.approx(float(expected))
    low, high = intervals["x,y"][:, 0]
    assert_widened(mine, low, high, len(y), 0.15)


def test_seeds_of_each_run_are_resampled_by_themselves():
    # Two runs without spread, far apart: the chance is known exactly.
    interval = probability_of_improvement(np.full(8, 10.0), np.zeros(9))
    assert float(interval.low) == float(interval.high) == 1.0
