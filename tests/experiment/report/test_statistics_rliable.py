"""Statistics against rliable's."""

import warnings

import numpy as np
import pytest

from purerl.experiment.report.statistics import iqm, probability_of_improvement, score_interval


@pytest.fixture(scope="module")
def rliable():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("rliable.library")
        metrics = pytest.importorskip("rliable.metrics")
    return library, metrics


def scores(seed, num_seeds=12, num_tasks=3, shift=0.0):
    random = np.random.default_rng(seed)
    return random.gamma(2.0, 1.0, (num_seeds, num_tasks)) + np.arange(num_tasks) + shift


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(iqm, "aggregate_iqm"), (np.mean, "aggregate_mean")],
)
@pytest.mark.parametrize("num_tasks", [1, 3])
def test_aggregates_and_stratified_intervals(ours, theirs, num_tasks, rliable):
    library, metrics = rliable
    x = scores(0, num_tasks=num_tasks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points, intervals = library.get_interval_estimates(
            {"x": x}, lambda x: np.array([getattr(metrics, theirs)(x)]), reps=4000
        )
    mine = score_interval(x, ours, resamples=4000)
    assert float(mine.value) == pytest.approx(float(points["x"][0]))
    low, high = intervals["x"][:, 0]
    width = high - low
    assert abs(float(mine.low) - low) < 0.1 * width
    assert abs(float(mine.high) - high) < 0.1 * width


def test_median_and_its_interval(rliable):
    library, metrics = rliable
    x = scores(1, num_seeds=31, num_tasks=1)

    def median(x):
        # rliable's is over tasks, of means over seeds: here each seed is a task of one seed.
        return np.array([metrics.aggregate_median(x.T)])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points, intervals = library.get_interval_estimates({"x": x}, median, reps=4000)
    mine = score_interval(x, np.median, resamples=4000)
    assert float(mine.value) == pytest.approx(float(points["x"][0]))
    low, high = intervals["x"][:, 0]
    assert abs(float(mine.low) - low) < 0.1 * (high - low)
    assert abs(float(mine.high) - high) < 0.1 * (high - low)


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
    mine = probability_of_improvement(x, y)
    assert float(mine.value) == pytest.approx(float(expected))
    low, high = intervals["x,y"][:, 0]
    assert abs(float(mine.low) - low) < 0.15 * (high - low)
    assert abs(float(mine.high) - high) < 0.15 * (high - low)


def test_seeds_of_each_task_are_resampled_by_themselves():
    # Two tasks without spread, far apart: their mean is known exactly.
    x = np.stack([np.zeros(8), np.full(8, 10.0)], axis=1)
    interval = score_interval(x, np.mean)
    assert float(interval.low) == float(interval.high) == 5.0
