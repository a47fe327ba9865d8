import numpy as np
from scipy import stats

from purerl.experiment.report.statistics import curve_interval, fill_forward, iqm, iqm_interval


def test_iqm_is_the_mean_of_the_middle_half():
    x = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])
    assert iqm(x) == np.mean([2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(iqm(np.stack([x, x + 1], axis=1)), [3.5, 4.5])


def test_interval_is_a_percentile_bootstrap_over_seeds():
    x = np.random.default_rng(1).normal(size=(40, 3))
    found = iqm_interval(x)
    rng = np.random.default_rng(2)
    resampled = [iqm(x[rng.integers(0, 40, 40)]) for _ in range(4000)]
    np.testing.assert_allclose(found.value, stats.trim_mean(x, 0.25))
    np.testing.assert_allclose(found.low, np.percentile(resampled, 2.5, axis=0), atol=0.05)
    np.testing.assert_allclose(found.high, np.percentile(resampled, 97.5, axis=0), atol=0.05)


def test_interval_is_the_same_each_time_and_undefined_for_one_seed():
    x = np.random.default_rng(0).normal(size=(12, 2))
    np.testing.assert_array_equal(iqm_interval(x).low, iqm_interval(x).low)
    alone = iqm_interval(x[:1])
    np.testing.assert_array_equal(alone.value, x[0])
    assert np.isnan(alone.low).all()
    assert np.isnan(alone.high).all()


def test_the_interval_of_a_curve_of_many_seeds_is_about_that_of_all():
    x = np.random.default_rng(1).normal(size=(5000, 4))
    found, whole = curve_interval(x, resamples=500), iqm_interval(x, resamples=500)
    np.testing.assert_array_equal(found.value, whole.value)
    widths = (found.high - found.low, whole.high - whole.low)
    np.testing.assert_allclose(*widths, rtol=0.15)
    assert np.all((found.low < found.value) & (found.value < found.high))
    few = x[:40]
    np.testing.assert_array_equal(curve_interval(few).low, iqm_interval(few).low)


def test_interval_of_equal_seeds_is_that_value():
    assert tuple(float(x) for x in iqm_interval(np.full(9, 500.0))) == (500.0, 500.0, 500.0)


def test_fill_forward_repeats_the_last_number_and_keeps_leading_nan():
    nan = np.nan
    x = np.array([[nan, 1.0, nan, 2.0, nan], [3.0, nan, nan, nan, 4.0]])
    wanted = np.array([[nan, 1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 3.0, 3.0, 4.0]])
    np.testing.assert_array_equal(fill_forward(x), wanted)
