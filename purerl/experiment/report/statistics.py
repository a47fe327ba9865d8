"""Statistics over seeds: interquartile means, means and medians, with bootstrap intervals."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy  # scipy.stats takes half a second to import: scipy does so at its first use
from jaxtyping import Float
from numpy import ndarray

MAX_RESAMPLED_SEEDS = 1024  # of a curve: every point of it is bootstrapped
MAX_RESAMPLED_NUMBERS = 2**22  # at once: 32 MB


class Interval(NamedTuple):
    """An estimate and its 95% interval; the bounds are NaN for a single seed."""

    value: Float[ndarray, "*points"]
    low: Float[ndarray, "*points"]
    high: Float[ndarray, "*points"]


class ReturnStatistics(NamedTuple):
    """Three statistics of the return over seeds."""

    iqm: Interval
    mean: Interval
    median: Interval


def return_statistics(returns: Float[ndarray, " seeds"]) -> ReturnStatistics:
    """The statistics over the seeds that have a return."""
    defined = (drop_nan(returns),)
    return ReturnStatistics(*(_bootstrapped(defined, f, 2000) for f in (iqm, np.mean, np.median)))


def drop_nan(returns: Float[ndarray, " seeds"]) -> Float[ndarray, " defined"]:
    """The returns of the seeds that have one: without NaN."""
    return returns[~np.isnan(returns)]


def share_solved(returns: Float[ndarray, " seeds"], target: float | None) -> float | None:
    """The share of all seeds whose return reaches the target; None without a target."""
    return None if target is None else float(np.mean(returns >= target))


def iqm(x: Float[ndarray, "..."], axis: int = 0) -> Float[ndarray, "..."]:
    """The interquartile mean over an axis: the mean of the middle half.

    Agarwal et al. (2021), arXiv:2108.13264.
    """
    return np.asarray(scipy.stats.trim_mean(x, 0.25, axis=axis))


def iqm_interval(x: Float[ndarray, "seeds *points"], *, resamples: int = 2000) -> Interval:
    """The IQM over seeds with its 95% percentile bootstrap interval.

    Whole seeds are resampled, in the same way each time: equal data give equal intervals.
    """
    return _bootstrapped((x,), iqm, resamples)


def return_iqm(returns: Float[ndarray, " seeds"]) -> Interval:
    """The `iqm_interval` over the seeds that have a return; NaN where none has."""
    defined = drop_nan(returns)
    return iqm_interval(defined) if defined.size else Interval(*[np.array(np.nan)] * 3)


def curve_interval(curves: Float[ndarray, "seeds points"], *, resamples: int = 2000) -> Interval:
    """The IQM over seeds with its 95% interval at every point of a curve.

    Up to `MAX_RESAMPLED_SEEDS` it is `iqm_interval`. Of more, a sample of so many is resampled. Its
    interval is narrowed by `√(MAX_RESAMPLED_SEEDS / seeds)`, and moved to the IQM of all seeds.
    """
    num_seeds = len(curves)
    if num_seeds <= MAX_RESAMPLED_SEEDS:
        return iqm_interval(curves, resamples=resamples)
    indices = np.random.default_rng(0).choice(num_seeds, MAX_RESAMPLED_SEEDS, replace=False)
    sample, value = iqm_interval(curves[indices], resamples=resamples), iqm(curves)
    scale = np.sqrt(MAX_RESAMPLED_SEEDS / num_seeds)
    low, high = (value + (bound - sample.value) * scale for bound in (sample.low, sample.high))
    return Interval(value, low, high)


def probability_of_improvement(
    x: Float[ndarray, " seeds"], y: Float[ndarray, " others"], *, resamples: int = 2000
) -> Interval:
    """The chance that a seed of `x` scores more than one of `y`, ties counted half.

    The Mann-Whitney statistic `U / (seeds · others)`, with its bootstrap interval, for which the
    seeds of each are resampled separately. Agarwal et al. (2021), arXiv:2108.13264.
    """

    def chance(x: ndarray, y: ndarray, axis: int = 0) -> Any:
        x, y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
        count = scipy.stats.mannwhitneyu(x, y, axis=-1, method="asymptotic").statistic
        return count / (x.shape[-1] * y.shape[-1])

    return _bootstrapped((x, y), chance, resamples)


def _bootstrapped(
    samples: tuple[ndarray, ...], statistic: Callable[..., Any], resamples: int
) -> Interval:
    value = np.asarray(statistic(*samples, axis=0))
    if min(len(sample) for sample in samples) < 2:
        nan = np.full_like(value, np.nan)
        return Interval(value, nan, nan)
    bounds = scipy.stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, MAX_RESAMPLED_NUMBERS // sum(sample.size for sample in samples)),
        axis=0,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value, np.asarray(bounds.low), np.asarray(bounds.high))


def fill_forward(x: Float[ndarray, "seeds records"]) -> Float[ndarray, "seeds records"]:
    """Replace each NaN by the last number before it in its row; a NaN at the start stays."""
    index = np.where(np.isnan(x), 0, np.arange(x.shape[1]))
    return np.take_along_axis(x, np.maximum.accumulate(index, axis=1), axis=1)
