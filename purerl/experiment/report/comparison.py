"""Finished runs of one environment, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray

from purerl.checks import option
from purerl.experiment.report.format import format_number
from purerl.experiment.report.statistics import (
    Interval,
    ReturnStatistics,
    count_near_target,
    drop_nan,
    probability_of_improvement,
    return_statistics,
    seed_noise,
    share_solved,
)
from purerl.experiment.store.finished_run import FinishedRun, read_run
from purerl.experiment.store.header import format_diff, unlike
from purerl.experiment.store.paths import as_directory, shown


class ComparedRun(NamedTuple):
    """One of several runs, with statistics over the seeds that have a return."""

    name: str
    """The last parts of its path, as few as tell it from the others."""
    run: FinishedRun
    statistics: ReturnStatistics
    solved: float | None
    num_near_target: int | None
    improvement: Interval | None
    """The chance that a seed of this run scores more than one of the first; None for the first."""
    differences: tuple[str, ...] = ()
    """What its returns do not have in common with those of the first, where that is allowed."""


def compare_runs(
    directories: Sequence[str | Path], *, allow_different: bool = False
) -> list[ComparedRun]:
    """Compare finished runs of one environment, with the same parameters, steps and evaluation.

    Means and intervals leave out a seed without a return; in the chance to beat the first run it
    counts as worse than all that have one. Steps may differ by less than an update.

    **Arguments:** `allow_different` compares unlike runs too, and says how they differ.

    **Raises:** `ValueError` where one is not finished, they are unlike, or their returns are not of
    one kind.
    """
    if not directories:
        raise ValueError("runs must name at least one run directory.")
    names = shortest_names([as_directory(directory) for directory in directories])
    runs = [read_run(directory) for directory in directories]
    require_same_return_kind(runs)
    differences = [find_differences(runs[0], run) for run in runs]
    for run, found in zip(runs, differences, strict=True):
        if found and not allow_different:
            raise ValueError(
                f"{shown(run.directory)!r} is unlike {shown(runs[0].directory)!r}: "
                f"{format_diff(found)}; to compare them all the same, use "
                f"{option('allow_different')}."
            )
        if not drop_nan(run.returns).size:
            raise ValueError(f"{shown(run.directory)!r}: no seed has a return; leave it out.")
    return [
        ComparedRun(
            name=name,
            run=run,
            statistics=return_statistics(run.returns),
            solved=share_solved(run.returns, run.target_return),
            num_near_target=count_near_target(run.returns, _noise(run), run.target_return),
            improvement=None
            if run is runs[0]
            else probability_of_improvement(run.returns, runs[0].returns),
            differences=tuple(found),
        )
        for name, run, found in zip(names, runs, differences, strict=True)
    ]


def find_differences(first: FinishedRun, other: FinishedRun) -> list[str]:
    """What the returns of two runs do not have in common: the environment, steps, episodes."""
    differences = unlike(first.conditions, other.conditions)
    if first.env != other.env:
        differences.insert(0, f"{first.env} and {other.env}")
    if abs(first.env_steps - other.env_steps) >= max(
        first.env_steps_per_update, other.env_steps_per_update
    ):
        steps = (format_number(run.env_steps) for run in (first, other))
        differences.append(f"env steps: {' and '.join(steps)}")
    return differences


def _noise(run: FinishedRun) -> Float[ndarray, " seeds"] | None:
    """`seed_noise` of the last greedy episodes; None where the returns are not of them."""
    episodes = run.arrays.get("greedy_episode_return")
    if not run.greedy or episodes is None or episodes.ndim != 3 or not episodes.shape[1]:
        return None
    return seed_noise(episodes[:, -1])


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
