import numpy as np
import pytest
from scipy import stats

from purerl.experiment.report.curves import fill_forward
from purerl.experiment.report.statistics import (
    count_near_target,
    curve_interval,
    difference_of_iqms,
    iqm,
    iqm_interval,
    probability_of_improvement,
    seed_noise,
)


def test_iqm_is_the_mean_of_the_middle_half():
    x = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])
    assert iqm(x) == np.mean([2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(iqm(np.stack([x, x + 1], axis=1)), [3.5, 4.5])


def widened(value, bound, count):
    return value + (bound - value) * stats.t.ppf(0.975, count - 1) / 1.96 * np.sqrt(
        count / (count - 1)
    )


def test_interval_is_a_widened_percentile_bootstrap_over_seeds():
    x = np.random.default_rng(1).normal(size=(40, 3))
    found = iqm_interval(x)
    rng = np.random.default_rng(2)
    resampled = [iqm(x[rng.integers(0, 40, 40)]) for _ in range(4000)]
    np.testing.assert_allclose(found.value, stats.trim_mean(x, 0.25))
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found.low, widened(found.value, low, 40), atol=0.05)
    np.testing.assert_allclose(found.high, widened(found.value, high, 40), atol=0.05)


def test_the_interval_of_a_difference_resamples_the_seeds_of_each():
    rng = np.random.default_rng(3)
    x, y = rng.normal(2, 1, 40), rng.normal(0, 3, 30)
    found = difference_of_iqms(x, y)
    resampled = [
        iqm(x[rng.integers(0, 40, 40)]) - iqm(y[rng.integers(0, 30, 30)]) for _ in range(4000)
    ]
    assert found.value == iqm(x) - iqm(y)
    low, high = np.percentile(resampled, [2.5, 97.5])
    np.testing.assert_allclose(found.low, widened(found.value, low, 30), atol=0.1)
    np.testing.assert_allclose(found.high, widened(found.value, high, 30), atol=0.1)


POPULATIONS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "ceiling": lambda rng, shape: np.minimum(rng.normal(0.5, 1.0, shape), 1.0),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape),
    "30% fail": lambda rng, shape: (
        rng.normal(0.0, 0.5, shape) + np.where(rng.random(shape) < 0.3, 0.0, 10.0)
    ),
}


@pytest.mark.parametrize(("name", "count"), [
    *((name, count) for name in list(POPULATIONS)[:4] for count in (4, 6, 8, 16)),
    *(("30% fail", count) for count in (8, 10, 16)),
])  # fmt: skip
def test_intervals_hold_the_true_iqm(name, count):
    """Of 2000 runs of so many seeds, and at least as often as the percentile interval does."""
    draw, rng = POPULATIONS[name], np.random.default_rng(count)
    everybody = np.sort(draw(np.random.default_rng(0), 1_000_000))
    truth = everybody[250_000:-250_000].mean()
    found = iqm_interval(draw(rng, (count, 2000)), resamples=400)
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    assert covered >= (0.9 if name == "30% fail" else 0.93)
    assert covered < 0.985


@pytest.mark.parametrize("count", [1, 2, 3])
def test_there_is_no_interval_of_fewer_than_four_seeds(count):
    few, others = np.arange(float(count)), np.arange(8.0)
    for interval in (
        iqm_interval(few),
        probability_of_improvement(few, others),
        probability_of_improvement(others, few),
    ):
        assert np.isfinite(interval.value)
        assert np.isnan(interval.low)
        assert np.isnan(interval.high)


def test_a_chance_stays_one():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=4), rng.normal(size=4) - 0.5
    chance = probability_of_improvement(x, y)
    assert 0 <= chance.low <= chance.value <= chance.high <= 1


def test_a_seed_that_failed_is_worse_than_all_in_a_chance():
    x, y = np.array([1.0, np.nan, 3.0, np.nan]), np.array([0.0, 2.0, np.nan, -5.0])
    worst = -np.inf
    pairs = [(a, b) for a in np.nan_to_num(x, nan=worst) for b in np.nan_to_num(y, nan=worst)]
    wins = np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs])
    assert float(probability_of_improvement(x, y).value) == pytest.approx(wins)


def test_the_noise_of_a_seed_is_that_of_its_mean_over_episodes():
    episodes = np.random.default_rng(0).normal(10.0, 2.0, (5, 16))
    for seed, found in zip(episodes, seed_noise(episodes), strict=True):
        low, high = stats.t.interval(0.95, 15, seed.mean(), stats.sem(seed))
        assert found == pytest.approx((high - low) / 2)
    assert np.isnan(seed_noise(episodes[:, :1])).all()
    returns, noise = np.array([474.0, 476.0, 500.0, 480.0, np.nan]), np.array([2.0, 0, 0, 6, 1])
    assert count_near_target(returns, noise, 475.0) == 2
    assert count_near_target(returns, noise, None) is None
    assert count_near_target(returns, np.full(5, np.nan), 475.0) is None


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
