"""What repeated timings come to: medians, their ratios, and how far the repeats lie apart."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Spread(NamedTuple):
    """A median, and the range of what it is the median of."""

    median: float
    low: float
    high: float

    def show(self, scale: float = 1.0, digits: int = 0) -> str:
        """`median [low, high]`, divided by `scale`."""
        median, low, high = (f"{each / scale:.{digits}f}" for each in self)
        return f"{median} [{low}, {high}]"


def spread(values: Sequence[float]) -> Spread:
    """The median and the range of repeats."""
    return Spread(float(np.median(values)), float(np.min(values)), float(np.max(values)))


def ratio(values: Sequence[float], others: Sequence[float]) -> Spread:
    """The ratio of two medians, and the range of the ratios within each repeat.

    Repeat i of the one ran next to repeat i of the other, so that what slows the machine for a
    while slows both: the range is of `values[i] / others[i]`, stretched to hold the ratio itself.
    """
    middle = float(np.median(values) / np.median(others))
    paired = [*(np.asarray(values) / np.asarray(others)), middle]
    return Spread(middle, float(np.min(paired)), float(np.max(paired)))


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds of a call until all that it returns is computed, and what it returns."""
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - start, result


def time_in_turn(programs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """The seconds of programs that have run before, in turn, in an order that rotates."""
    names = list(programs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name].append(timed(programs[name])[0])
    return seconds
