"""What repeated timings come to: medians, their ratios, and how far the repeats lie apart."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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


def show_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as text: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join([row[0].ljust(widths[0]), *rest])

    return "\n".join(
        [line(cells[0]), "  ".join("-" * width for width in widths)]
        + [line(row) for row in cells[1:]]
    )
