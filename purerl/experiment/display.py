"""What a run shows: a progress line while it trains, a table when it is done."""

from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from purerl.experiment.statistics import Interval, iqm


class Display:
    """Two live lines on stderr: bar, updates, ETA; steps/s, IQM, seeds solved and failed."""

    def __init__(self, num_updates: int, target_return: float | None, *, show: bool):
        self.target_return = target_return
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} updates"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self.task = self.progress.add_task("compiling", total=num_updates)
        self.status = Text()
        console = Console(stderr=True, quiet=not show)
        self.live = Live(Group(self.progress, self.status), console=console)

    def __enter__(self) -> "Display":
        self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.live.stop()
        if not self.live.console.is_terminal:
            self.live.console.line()  # a terminal's line is ended by rich itself

    def training(self) -> None:
        """Say that compiling is over; the estimate of what is left starts from here."""
        self.progress.reset(self.task, description="training")

    def update(self, updates: int, steps_per_second: float, latest: np.ndarray, failed: int):
        """Show the state after a chunk; `latest` holds each seed's last return, NaN for none."""
        alive = latest[~np.isnan(latest)]
        parts = [f"{short(steps_per_second)} env steps/s"]
        if alive.size:
            parts.append(f"return, IQM over seeds {iqm(alive):.1f}")
        if self.target_return is not None:
            parts.append(f"solved {np.sum(alive >= self.target_return)}/{latest.size}")
        if failed:
            parts.append(f"failed {failed}")
        self.status.plain = "  " + " · ".join(parts)
        self.progress.update(self.task, completed=updates)


def summary_table(title: str, rows: list[tuple[str, str]]) -> Table:
    """A table of two columns: what, and its figure."""
    table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
    for what, figure in rows:
        table.add_row(what, figure)
    return table


def show_interval(interval: Interval) -> str:
    """`487.2 [471.0, 499.3]`, or the value alone where there is no interval."""
    value, low, high = (float(np.asarray(x)) for x in interval)
    return f"{value:.1f}" if np.isnan(low) else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def short(number: float) -> str:
    """`1.23 M` for 1,230,000."""
    for unit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"


def show(renderable: Any) -> None:
    """Print something of rich's to stdout."""
    Console().print(renderable)
