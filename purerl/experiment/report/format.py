"""Numbers in words, for tables, displays and axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from purerl.experiment.report.statistics import Interval


def short(number: int | float) -> str:
    """`1.23 M` for 1,230,000."""
    for unit, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"


def with_minus(number: str) -> str:
    """A number with the minus sign that figures have on their axes."""
    return number.replace("-", "\N{MINUS SIGN}")


def ranges(ids: Sequence[int]) -> str:
    """All of some ascending ids, `0-3, 7` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for each in ids:
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def short_list(values: Sequence[Any], most: int = 6) -> str:
    """`3, 17, 21`, and only how many more where there are many."""
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more


def show_interval(interval: Interval, digits: int = 1) -> str:
    """`487.2 [471.0, 499.3]`, or the value alone where there is no interval."""
    value, low, high = (f"{float(np.asarray(x)):.{digits}f}" for x in interval)
    return value if low == "nan" else f"{value} [{low}, {high}]"


def show_bytes(count: int | float) -> str:
    """Bytes for people: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
