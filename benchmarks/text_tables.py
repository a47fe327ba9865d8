"""Tables of figures, as text."""

from collections.abc import Sequence
from typing import Any


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
