"""What a sweep leaves: its metrics, and its settings in the order of what they came to."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.config.config import Config
from purerl.experiment.report.run_result import Times
from purerl.experiment.report.statistics import (
    NOTHING,
    Interval,
    iqm,
    iqm_interval,
    known,
    share_at,
)
from purerl.experiment.store import files
from purerl.experiment.store.header import env_name
from purerl.types import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Ranked(NamedTuple):
    """A setting of a sweep: its index, its values, and what they came to over seeds."""

    setting: int
    values: dict[str, float]
    episode_return: Interval
    solved: float | None
    num_failed: int


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep at its end. `metrics` and `returns` are NumPy, `[settings, seeds, ...]`."""

    configs: Config
    values: dict[str, Float[ndarray, " settings"]]
    metrics: Metrics
    returns: Float[ndarray, "settings seeds"]
    failed: ndarray
    seed_ids: tuple[int, ...]
    directory: Path
    target_return: float | None
    times: Times
    updates: int
    """Updates trained: all, unless a signal has stopped the sweep."""

    @property
    def order(self) -> list[int]:
        """The settings, best first, by the IQM over seeds of their return.

        For the order alone, a seed that has no return counts as worse than all that have one.
        """
        found = known(self.returns.ravel())
        worse = found.min() - np.ptp(found) - 1 if found.size else 0.0
        scores = iqm(np.where(np.isnan(self.returns), worse, self.returns).T)
        return np.argsort(-scores, kind="stable").tolist()

    def ranking(self) -> list[Ranked]:
        """The settings, best first, with the interval over the seeds that have a return."""
        return [self._ranked(setting) for setting in self.order]

    def _ranked(self, setting: int) -> Ranked:
        returns = self.returns[setting]
        found = known(returns)
        return Ranked(
            setting=setting,
            values={name: float(column[setting]) for name, column in self.values.items()},
            episode_return=iqm_interval(found) if found.size else NOTHING,
            solved=share_at(returns, self.target_return),
            num_failed=int(np.sum(self.failed[setting])),
        )

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw one learning curve a setting, and save it, as `sweep.png` in the directory.

        Seeds that failed are left out, and the labels count them.
        """
        from purerl.experiment.report import figures as plot

        config, order = self.configs, self.order
        per_record = config.log_every * config.env_steps_per_update
        num_settings, num_seeds = self.returns.shape
        num_records = self.metrics.episode_return.shape[-1]
        figure = plot.sweep_curves(
            np.arange(1, num_records + 1) * float(per_record),
            [self.metrics.episode_return[i][~self.failed[i]] for i in order],
            [self._label(setting) for setting in order],
            title=f"{env_name(config)}, {config.algorithm.name}: {num_settings} settings, "
            f"{num_seeds} seeds each",
            target_return=self.target_return,
        )
        plot.save_figure(figure, self.directory / "sweep.png" if path is None else Path(path))
        return figure

    def _label(self, setting: int) -> str:
        values = ((name, column[setting]) for name, column in self.values.items())
        failed = int(np.sum(self.failed[setting]))
        told = f" ({failed} failed and left out)" if failed else ""
        return ", ".join(f"{name} {value:.3g}" for name, value in values) + told


def write_sweep(result: Sweep) -> None:
    """Write a sweep's metrics, ranking and figure into its directory.

    The arrays hold what each seed came to too: `final_return` and `failed`, `[settings, seeds]`.
    """
    directory = result.directory
    swept = {name.replace(".", "_"): column for name, column in result.values.items()}
    names = [field.name for field in dataclasses.fields(result.metrics)]
    metrics = {name: getattr(result.metrics, name) for name in names}
    of_seeds = {
        "seed_ids": np.asarray(result.seed_ids),
        "final_return": result.returns,
        "failed": result.failed,
    }
    files.write_arrays(directory / files.METRICS, metrics | swept | of_seeds)
    ranking = [
        each._asdict() | {"episode_return": each.episode_return._asdict()}
        for each in result.ranking()
    ]
    summary = {
        "ranking": ranking,
        "target_return": result.target_return,
        "num_seeds": len(result.seed_ids),
        "updates": result.updates,
        "env_steps": result.updates * result.configs.env_steps_per_update,
        "times": result.times._asdict(),
    }
    files.write_json(directory / files.SWEEP, summary)
    result.plot()
