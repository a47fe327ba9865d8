"""Honest numbers over seeds: interquartile means with bootstrap intervals."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

BATCH = 2**22  # numbers that are resampled at once: 32 MB


class Interval(NamedTuple):
    """An estimate and its 95% interval; the bounds are NaN where there is one seed alone."""

    value: Float[ndarray, "*points"]
    low: Float[ndarray, "*points"]
    high: Float[ndarray, "*points"]


def iqm(x: Float[ndarray, "seeds *points"]) -> Float[ndarray, "*points"]:
    """The interquartile mean over the first axis: the mean of the middle half.

    Agarwal et al. (2021), arXiv:2108.13264.
    """
    return np.asarray(stats.trim_mean(x, 0.25, axis=0))


def iqm_interval(x: Float[ndarray, "seeds *points"], *, resamples: int = 2000) -> Interval:
    """The IQM over seeds with its 95% percentile bootstrap interval, seeds resampled whole.

    The resampling is seeded: equal data give equal intervals.
    """
    value = iqm(x)
    if x.shape[0] < 2:
        nothing = np.full_like(value, np.nan)
        return Interval(value, nothing, nothing)
    bounds = stats.bootstrap(
        (x,),
        lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
        n_resamples=resamples,
        batch=max(1, BATCH // x.size),
        axis=0,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value, np.asarray(bounds.low), np.asarray(bounds.high))


def fill_forward(x: Float[ndarray, "seeds records"]) -> Float[ndarray, "seeds records"]:
    """Replace each NaN by the last number before it in its row; leading NaN stay."""
    index = np.where(np.isnan(x), 0, np.arange(x.shape[1]))
    return np.take_along_axis(x, np.maximum.accumulate(index, axis=1), axis=1)
