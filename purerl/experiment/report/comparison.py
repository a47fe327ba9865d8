"""Finished runs of one environment, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from purerl.experiment.report.statistics import (
    Interval,
    OverSeeds,
    known,
    over_seeds,
    probability_of_improvement,
    share_at,
)
from purerl.experiment.store.records import Saved, read_run, short_names


class Compared(NamedTuple):
    """One of several runs: statistics over the seeds that have a return, and against the first."""

    name: str
    """The shortest path that tells it from the others."""
    run: Saved
    figures: OverSeeds
    solved: float | None
    improvement: Interval | None
    """The chance that a seed of this run scores more than one of the first; None for that."""


def compare_runs(directories: Sequence[str | Path]) -> list[Compared]:
    """Compare finished runs of one environment.

    **Raises:** `ValueError` where one is not finished, they are of several environments, or their
    returns are not of one kind.
    """
    names = short_names([Path(directory) for directory in directories])
    runs = [read_run(directory) for directory in directories]
    envs = list(dict.fromkeys(run.env for run in runs))
    if len(envs) != 1:
        raise ValueError(f"runs of {' and '.join(envs)} cannot be compared; name those of one.")
    require_one_kind(runs)
    first = runs[0]
    for run in runs:
        if not known(run.returns).size:
            raise ValueError(f"{str(run.directory)!r}: no seed has a return; leave it out.")
    return [
        Compared(
            name=name,
            run=run,
            figures=over_seeds(run.returns),
            solved=share_at(run.returns, run.target_return),
            improvement=None if run is first else _improvement(run, first),
        )
        for name, run in zip(names, runs, strict=True)
    ]


def _improvement(run: Saved, first: Saved) -> Interval:
    scores, others = (known(each.returns)[:, None] for each in (run, first))
    return probability_of_improvement(scores, others)


def require_one_kind(runs: Sequence[Saved]) -> None:
    """Refuse returns of greedy episodes beside returns in training."""
    of_kind = {run.greedy: str(run.directory) for run in reversed(runs)}
    if len(of_kind) > 1:
        raise ValueError(
            f"the returns of {of_kind[True]!r} are of greedy episodes, those of "
            f"{of_kind[False]!r} the last in training; name runs of one kind."
        )
