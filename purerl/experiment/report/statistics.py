"""Honest numbers over seeds: interquartile means, means and medians with bootstrap intervals."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy  # it imports scipy.stats, half a second, where that is first used
from jaxtyping import Float
from numpy import ndarray

RESAMPLED = 1024  # seeds of a curve: it is an interval at each of its points
BATCH = 2**22  # numbers that are resampled at once: 32 MB


class Interval(NamedTuple):
    """An estimate and its 95% interval; the bounds are NaN where there is one seed alone."""

    value: Float[ndarray, "*points"]
    low: Float[ndarray, "*points"]
    high: Float[ndarray, "*points"]


NOTHING = Interval(*[np.array(np.nan)] * 3)


class OverSeeds(NamedTuple):
    """The three figures of a return over seeds."""

    iqm: Interval
    mean: Interval
    median: Interval


def over_seeds(returns: Float[ndarray, " seeds"]) -> OverSeeds:
    """The figures of the seeds that have a return."""
    scores = known(returns)[:, None]
    return OverSeeds(*(score_interval(scores, each) for each in (iqm, np.mean, np.median)))


def known(returns: Float[ndarray, " seeds"]) -> Float[ndarray, " known"]:
    """The returns of the seeds that have one; it is NaN for the others."""
    return returns[~np.isnan(returns)]


def share_at(returns: Float[ndarray, " seeds"], target: float | None) -> float | None:
    """The share of all seeds that reach a return; None without one."""
    return None if target is None else float(np.mean(returns >= target))


def iqm(x: Float[ndarray, "..."], axis: int = 0) -> Float[ndarray, "..."]:
    """The interquartile mean over an axis, that of seeds: the mean of the middle half.

    Agarwal et al. (2021), arXiv:2108.13264.
    """
    return np.asarray(scipy.stats.trim_mean(x, 0.25, axis=axis))


def iqm_interval(x: Float[ndarray, "seeds *points"], *, resamples: int = 2000) -> Interval:
    """The IQM over seeds with its 95% percentile bootstrap interval, seeds resampled whole.

    The resampling is seeded: equal data give equal intervals.
    """
    return interval((x,), iqm, resamples=resamples)


def curve_interval(curves: Float[ndarray, "seeds points"], *, resamples: int = 2000) -> Interval:
    """The IQM over seeds with its 95% interval at every point of a curve.

    It is `iqm_interval` of up to `RESAMPLED` seeds. Of more, so many are drawn and resampled, and
    their interval around their IQM is narrowed by `√(RESAMPLED / seeds)`, around that of all.
    """
    num_seeds = len(curves)
    if num_seeds <= RESAMPLED:
        return iqm_interval(curves, resamples=resamples)
    drawn = np.random.default_rng(0).choice(num_seeds, RESAMPLED, replace=False)
    part, value = iqm_interval(curves[drawn], resamples=resamples), iqm(curves)
    low, high = (
        value + (bound - part.value) * np.sqrt(RESAMPLED / num_seeds)
        for bound in (part.low, part.high)
    )
    return Interval(value, low, high)


def score_interval(
    scores: Float[ndarray, "seeds tasks"],
    statistic: Callable[..., Any] = iqm,
    *,
    resamples: int = 2000,
) -> Interval:
    """A statistic of all scores with its stratified bootstrap interval.

    The seeds of each task are resampled by themselves, so that every task keeps its weight.
    Agarwal et al. (2021), arXiv:2108.13264.

    **Arguments:** `statistic` is `iqm`, `np.mean` or `np.median`, or any that takes an `axis`.
    """
    return interval(tuple(scores.T), statistic, resamples=resamples)


def interval(
    samples: tuple[Float[ndarray, "..."], ...],
    statistic: Callable[..., Any],
    *,
    resamples: int = 2000,
) -> Interval:
    """A statistic of several samples joined, each resampled by itself over its first axis."""

    def joined(*parts: ndarray, axis: int = 0) -> Any:
        return statistic(parts[0] if len(parts) == 1 else np.concatenate(parts, axis), axis=axis)

    return _bootstrapped(samples, joined, resamples)


def probability_of_improvement(
    x: Float[ndarray, "seeds tasks"], y: Float[ndarray, "others tasks"], *, resamples: int = 2000
) -> Interval:
    """The chance that a seed of `x` scores more than one of `y`, ties counted half.

    The mean over tasks of the Mann-Whitney statistic `U / (seeds · others)`, with its stratified
    bootstrap interval. Agarwal et al. (2021), arXiv:2108.13264.
    """
    num_tasks = x.shape[1]

    def chance(*parts: ndarray, axis: int = 0) -> Any:
        each = []
        for ours, theirs in zip(parts[:num_tasks], parts[num_tasks:], strict=True):
            ours, theirs = np.moveaxis(ours, axis, -1), np.moveaxis(theirs, axis, -1)
            count = scipy.stats.mannwhitneyu(ours, theirs, axis=-1, method="asymptotic").statistic
            each.append(count / (ours.shape[-1] * theirs.shape[-1]))
        return np.mean(each, axis=0)

    return _bootstrapped((*x.T, *y.T), chance, resamples)


def _bootstrapped(
    samples: tuple[ndarray, ...], statistic: Callable[..., Any], resamples: int
) -> Interval:
    value = np.asarray(statistic(*samples, axis=0))
    if min(len(sample) for sample in samples) < 2:
        nothing = np.full_like(value, np.nan)
        return Interval(value, nothing, nothing)
    bounds = scipy.stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, BATCH // sum(sample.size for sample in samples)),
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
