"""How records of many seeds become one curve: the same for figures, loggers and the display."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num
from numpy import ndarray

from purerl.experiment.report.statistics import Interval, curve_interval, drop_nan, iqm
from purerl.types import Metrics


class EpisodeCurve(NamedTuple):
    """A mean over episodes, such as `episode_return`, of each seed and over seeds."""

    records: Int[ndarray, " points"]
    """The index of the last record of each point."""
    seeds: Float[ndarray, "seeds points"]
    """Of each seed: NaN before its first episode, and where it does not count."""
    iqm: Float[ndarray, " points"]
    """The interquartile mean over the seeds that have a number; NaN where none has."""
    num_seeds: Int[ndarray, " points"]
    """How many those are."""

    @property
    def is_complete(self) -> Bool[ndarray, " points"]:
        """Where every seed has a number."""
        return self.num_seeds == len(self.seeds)

    def interval(self) -> Interval:
        """The IQM with its 95% interval where every seed has a number; NaN elsewhere."""
        bounds = np.full((3, len(self.records)), np.nan)
        complete = self.is_complete & (self.num_seeds > 0)
        if complete.any():
            bounds[:, complete] = np.stack(curve_interval(self.seeds[:, complete]))
        return Interval(*bounds)


def episode_curve(
    values: Float[Array | ndarray, "..."],
    num_episodes: Num[Array | ndarray, "..."],
    *,
    last: Float[ndarray, " seeds"] | None = None,
    alive: Bool[ndarray, "seeds records"] | None = None,
    max_points: int | None = None,
) -> EpisodeCurve:
    """Reduce records `[seeds, records]` to a curve over seeds.

    `values` are means over `num_episodes` episodes each, as `episode_return` in `Metrics` is.

    A point is one record, or with `max_points` several: their mean, weighted by episodes. A seed of
    which no episode ended in a point keeps its number from before, at the start that of `last`. So
    no seed drops out because its episodes are long.

    **Arguments:** seeds count where `alive`, by default everywhere.

    **Raises:** `ValueError` where the shapes are not `[seeds, records]`, equal and not empty.
    """
    values, counts = np.asarray(values, float), np.asarray(num_episodes)
    if values.ndim != 2 or values.shape != counts.shape or not values.shape[1]:
        raise ValueError(
            f"values {values.shape} and num_episodes {counts.shape} must both be [seeds, records], "
            f"with a record at least; of one agent, give values[None] and num_episodes[None]."
        )
    num_records = values.shape[1]
    num_points = min(num_records, max_points or num_records)
    bins = np.array_split(np.arange(num_records), num_points)
    records = np.array([each[-1] for each in bins])
    if num_points < num_records:
        values = np.stack([_mean(values[:, each], counts[:, each]) for each in bins], axis=1)
    before = np.full(len(values), np.nan) if last is None else last
    seeds = fill_forward(np.column_stack([before, values]))[:, 1:]
    if alive is not None:
        seeds = np.where(alive[:, records], seeds, np.nan)
    num_seeds = np.sum(~np.isnan(seeds), axis=0)
    complete = (num_seeds == len(seeds)) & (num_seeds > 0)
    curve = np.full(num_points, np.nan)
    if complete.any():
        curve[complete] = iqm(seeds[:, complete])
    for i in np.flatnonzero(~complete & (num_seeds > 0)):
        curve[i] = iqm(drop_nan(seeds[:, i]))
    return EpisodeCurve(records, seeds, curve, num_seeds)


def _mean(
    values: Float[ndarray, "seeds records"], counts: Num[ndarray, "seeds records"]
) -> Float[ndarray, " seeds"]:
    """The mean over all episodes of some records; NaN where there were none."""
    total = np.sum(np.where(counts > 0, values * counts, 0), axis=1)
    count = np.sum(counts, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class LastEpisodes(NamedTuple):
    """What the last record with an episode of each seed said; NaN before the first."""

    episode_return: Float[ndarray, " seeds"]
    episode_length: Float[ndarray, " seeds"]

    @classmethod
    def none(cls, num_seeds: int) -> "LastEpisodes":
        """Before training."""
        return cls(*np.full((2, num_seeds), np.nan))

    def after(self, metrics: Metrics) -> "LastEpisodes":
        """After further records, `[seeds, records]`."""
        return LastEpisodes(
            *(
                fill_forward(np.column_stack([getattr(self, name), getattr(metrics, name)]))[:, -1]
                for name in self._fields
            )
        )


def fill_forward(x: Float[ndarray, "seeds records"]) -> Float[ndarray, "seeds records"]:
    """Replace each NaN by the last number before it in its row; a NaN at the start stays."""
    index = np.where(np.isnan(x), 0, np.arange(x.shape[1]))
    return np.take_along_axis(x, np.maximum.accumulate(index, axis=1), axis=1)
