"""Numbers, intervals, bytes and ids as short text, for tables, displays and axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.experiment.report.statistics import MIN_SEEDS, Interval, drop_nan


def format_number(number: int | float, unit: str = "") -> str:
    """`1.23 M` for 1,230,000; with a unit `1.23 MB`."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= scale:
            return f"{number / scale:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}".rstrip()


def format_bytes(count: int | float) -> str:
    """`1.5 GB` for 1,500,000,000."""
    return format_number(count, "B")


def format_ranges(ids: Sequence[int]) -> str:
    """Ascending ids, those in sequence as a range: `0-3, 7` for 0, 1, 2, 3, 7."""
    ranges: list[list[int]] = []
    for number in ids:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(str(ids[0]) if len(ids) == 1 else f"{ids[0]}-{ids[-1]}" for ids in ranges)


def format_failed(ids: Sequence[int], causes: Mapping[int, str]) -> str:
    """Ascending ids by cause, as far as it is known: `0-2 (reward at step 3), 7 (policy), 9`."""
    by_cause: dict[str | None, list[int]] = {}
    for number in ids:
        by_cause.setdefault(causes.get(number), []).append(number)
    unknown = by_cause.pop(None, [])
    known = [f"{format_ranges(own)} ({cause})" for cause, own in by_cause.items()]
    return ", ".join([*known, *[format_ranges(unknown)] * bool(unknown)])


def format_list(values: Sequence[Any], most: int = 6) -> str:
    """The first `most` of the values, `3, 17, 21`, and how many more there are."""
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more


def format_interval(interval: Interval, digits: int = 1) -> str:
    """`487.2 [471.0, 499.3]`, or the value alone where there is no interval.

    The interval's width says how many digits are shown, `digits` how many at least.
    """
    value, low, high = (float(np.asarray(x)) for x in interval)
    if np.isnan(low):
        return format_values([value], digits)[0]
    value, low, high = format_values([value, low, high], digits)
    return f"{value} [{low}, {high}]"


def format_returns(
    interval: Interval, returns: Float[ndarray, " seeds"], num_failed: int = 0
) -> str:
    """`487.2 [471.0, 499.3], 2 of 64 failed`; where seeds are too few for an interval, all of them.

    `returns` are those of all seeds, NaN where a seed has none.
    """
    defined = drop_nan(returns)
    text = format_interval(interval)
    if 1 < defined.size < MIN_SEEDS:
        value, *seeds = format_values([float(np.asarray(interval.value)), *defined])
        text = f"{value} of {', '.join(seeds)}"
    return f"{text}, {num_failed} of {len(returns)} failed" if num_failed else text


def format_value(value: float | ndarray) -> str:
    """A return: `484.5`, `0.954`."""
    return format_values([float(value)])[0]


def format_values(values: Sequence[Any], digits: int = 1) -> list[str]:
    """Numbers with as many digits behind the point: two of how far they lie apart, or, where they
    are equal, three of their size; `digits` at least, and no more than a float32 holds.
    """
    values = [float(value) for value in values]
    finite = [value for value in values if np.isfinite(value)]
    largest = max(map(abs, finite), default=0.0)
    width = max(finite, default=0.0) - min(finite, default=0.0)
    if largest:
        shown = 1 - _exponent(width) if width else 2 - _exponent(largest)
        digits = max(digits, min(shown, 5 - _exponent(largest)))
    return [f"{value:.{digits}f}" for value in values]


def _exponent(number: float) -> int:
    return int(np.floor(np.log10(number)))


def format_share(share: float, count: int) -> str:
    """`60 of 64 (94%)` for a share of so many seeds."""
    return f"{round(share * count)} of {count} ({share:.0%})"
