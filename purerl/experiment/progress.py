"""What a run shows: a progress line while it trains, a table when it is done."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy import ndarray
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
from rich.text import Text

from purerl.experiment.batches import Standing
from purerl.experiment.programs import Programs
from purerl.experiment.report.format import short, short_list, show_bytes
from purerl.experiment.report.statistics import fill_forward, iqm


class Display:
    """Two live lines on stderr: bar, updates, ETA; steps/s, IQM, seeds solved, failed, memory."""

    def __init__(self, num_updates: int, target_return: float | None, *, show: bool):
        self.target_return = target_return
        self.memory = ""
        self.latest: ndarray = np.array(np.nan)  # of each agent, once there was one
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
        if self.live.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.live.is_started:
            return
        self.live.stop()
        if not self.live.console.is_terminal:
            self.live.console.line()  # a terminal's line is ended by rich itself

    def training(self, programs: Programs, updates: int = 0) -> None:
        """Say that compiling is over, and what it told; what is left is estimated from here."""
        self.memory = f"{show_bytes(programs.memory)} a device"
        if len(programs.batches) > 1:
            self.memory += f", {len(programs.batches)} batches of {programs.seed_batch}"
        if not self.live.is_started:  # off a terminal, nothing is shown of a run that is refused
            self.live.start()
        self.progress.reset(self.task, description="training", completed=updates)

    def update(self, now: Standing, steps_per_second: float, failed_seeds: Sequence[Any]) -> None:
        """Show the state after a chunk: each agent's last return, of those that have not failed."""
        new = fill_forward(now.metrics.episode_return)[:, -1]
        self.latest = np.where(np.isnan(new), self.latest, new)
        failed = now.failed_at >= 0
        known = self.latest[~np.isnan(self.latest) & ~failed]
        parts = [f"{short(steps_per_second)} env steps/s"]
        if known.size:
            number = f"{known.size} seed{'s' * (known.size > 1)}"
            over = "seeds" if known.size == failed.size > 1 else number
            parts.append(f"return, IQM over {over} {iqm(known):.1f}")
        if self.target_return is not None:
            parts.append(f"solved {np.sum(known >= self.target_return)}/{failed.size}")
        if failed_seeds:
            parts.append(f"failed {len(failed_seeds)}: {short_list(failed_seeds)}")
        parts.append(self.memory)
        self.status.plain = "  " + " · ".join(parts)
        self.progress.update(self.task, completed=now.updates)
