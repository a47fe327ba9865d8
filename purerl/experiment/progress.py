"""The progress that a run shows on stderr while it trains."""

import sys
from collections.abc import Sequence
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

from purerl.experiment.batches import ChunkResult
from purerl.experiment.hosts.terminal import Terminal
from purerl.experiment.programs import CompiledPrograms
from purerl.experiment.report.curves import episode_curve
from purerl.experiment.report.format import (
    format_bytes,
    format_list,
    format_number,
    format_value,
)
from purerl.experiment.report.statistics import iqm


class ProgressDisplay:
    """Two live lines on stderr: bar, updates, ETA; steps/s, IQM, seeds solved, failed, memory."""

    def __init__(self, num_updates: int, target_return: float | None, *, show: bool):
        self.target_return = target_return
        self.memory = ""
        self.latest: ndarray | None = None  # of each agent; NaN until its first episode ends
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} updates"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self.task = self.progress.add_task("compiling", total=num_updates)
        self.status = Text()
        terminal: Any = Terminal(sys.stderr)
        console = Console(file=terminal, quiet=not show, markup=False, emoji=False)
        self.live = Live(Group(self.progress, self.status), console=console)

    def __enter__(self) -> "ProgressDisplay":
        if self.live.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.live.is_started:
            return
        self.live.stop()
        if not self.live.console.is_terminal:
            self.live.console.line()  # on a terminal, rich ends the line

    def start_training(
        self, programs: CompiledPrograms, updates: int = 0, latest: ndarray | None = None
    ) -> None:
        """Show that training begins, and its memory; the ETA counts from here.

        **Arguments:** `latest` are the agents' last returns, where training goes on.
        """
        self.latest = latest
        self.memory = f"{format_bytes(programs.memory)} a device"
        if len(programs.batches) > 1:
            self.memory += f", {len(programs.batches)} batches of {programs.seed_batch}"
        if not self.live.is_started:  # off a terminal, a refused run shows nothing
            self.live.start()
        self.progress.reset(self.task, description="training", completed=updates)

    def update(
        self, chunk: ChunkResult, steps_per_second: float, failed_seeds: Sequence[Any]
    ) -> None:
        """Show the state after a chunk; returns are the last of each agent that has not failed."""
        metrics, failed = chunk.metrics, chunk.failed_at >= 0
        curve = episode_curve(metrics.episode_return, metrics.num_episodes, last=self.latest)
        self.latest = curve.seeds[:, -1]
        known = self.latest[~np.isnan(self.latest) & ~failed]
        parts = [f"{format_number(steps_per_second)} env steps/s"]
        if known.size:
            count = f"{known.size} seed{'s' * (known.size > 1)}"
            seeds = "seeds" if known.size == failed.size > 1 else count
            parts.append(f"return, IQM over {seeds} {format_value(iqm(known))}")
        if self.target_return is not None:
            parts.append(f"solved {np.sum(known >= self.target_return)}/{failed.size}")
        if failed_seeds:
            parts.append(f"failed {len(failed_seeds)}: {format_list(failed_seeds)}")
        parts.append(self.memory)
        self.status.plain = "  " + " · ".join(parts)
        self.progress.update(self.task, completed=chunk.updates)
