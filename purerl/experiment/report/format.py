"""Numbers, intervals, bytes and ids as short text, for tables, displays and axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purerl.experiment.report.statistics import Interval


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
    """`487.2 [471.0, 499.3]`, or the value alone where there is no interval."""
    value, low, high = (f"{float(np.asarray(x)):.{digits}f}" for x in interval)
    return value if low == "nan" else f"{value} [{low}, {high}]"
