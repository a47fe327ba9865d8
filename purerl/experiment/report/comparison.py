"""Finished runs of one environment, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from purerl.experiment.report.statistics import (
    Interval,
    ReturnStatistics,
    drop_nan,
    probability_of_improvement,
    return_statistics,
    share_solved,
)
from purerl.experiment.store.finished_run import FinishedRun, read_run
from purerl.experiment.store.paths import as_directory, shown


class ComparedRun(NamedTuple):
    """One of several runs, with statistics over the seeds that have a return."""

    name: str
    """The last parts of its path, as few as tell it from the others."""
    run: FinishedRun
    statistics: ReturnStatistics
    solved: float | None
    improvement: Interval | None
    """The chance that a seed of this run scores more than one of the first; None for the first."""


def compare_runs(directories: Sequence[str | Path]) -> list[ComparedRun]:
    """Compare finished runs of one environment.

    **Raises:** `ValueError` where one is not finished, they are of several environments, or their
    returns are not of one kind.
    """
    names = shortest_names([as_directory(directory) for directory in directories])
    runs = [read_run(directory) for directory in directories]
    envs = list(dict.fromkeys(run.env for run in runs))
    if len(envs) != 1:
        raise ValueError(f"runs of {' and '.join(envs)} cannot be compared; name those of one.")
    require_same_return_kind(runs)
    scores = [drop_nan(run.returns) for run in runs]
    for run, own in zip(runs, scores, strict=True):
        if not own.size:
            raise ValueError(f"{shown(run.directory)!r}: no seed has a return; leave it out.")
    return [
        ComparedRun(
            name=name,
            run=run,
            statistics=return_statistics(run.returns),
            solved=share_solved(run.returns, run.target_return),
            improvement=None if run is runs[0] else probability_of_improvement(own, scores[0]),
        )
        for name, run, own in zip(names, runs, scores, strict=True)
    ]


def require_same_return_kind(runs: Sequence[FinishedRun]) -> None:
    """Refuse returns of greedy episodes beside returns in training."""
    directories = {run.greedy: shown(run.directory) for run in reversed(runs)}
    if len(directories) > 1:
        raise ValueError(
            f"the returns of {directories[True]!r} are of greedy episodes, those of "
            f"{directories[False]!r} the last in training; name runs of one kind."
        )


def shortest_names(directories: Sequence[Path]) -> list[str]:
    """Shorten each path to the last parts that distinguish it from the others.

    **Raises:** `ValueError` where one is named twice.
    """
    parts = [directory.resolve().parts for directory in directories]
    for directory, own in zip(directories, parts, strict=True):
        if parts.count(own) > 1:
            raise ValueError(f"{str(directory)!r} is named twice; name each run once.")

    def shortest(own: tuple[str, ...]) -> str:
        others = [other for other in parts if other is not own]
        for count in range(1, len(own)):
            if all(other[-count:] != own[-count:] for other in others):
                return "/".join(own[-count:])
        return str(Path(*own))

    return [shortest(own) for own in parts]
