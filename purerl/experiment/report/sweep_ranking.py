"""A finished sweep: its settings ranked by their returns, and the files that it leaves.

`purerl.config.sweeps` makes the settings, `purerl.experiment.sweep_runner` trains them.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from purerl.config.config import Config
from purerl.experiment.report.drawing import draw
from purerl.experiment.report.run_result import Times
from purerl.experiment.report.statistics import (
    Interval,
    count_near_target,
    drop_nan,
    fill_worst,
    iqm,
    return_iqm,
    share_solved,
)
from purerl.experiment.store import files
from purerl.experiment.store.header import env_name
from purerl.experiment.store.identity import Identity
from purerl.types import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE = "sweep.png"


class RankedSetting(NamedTuple):
    """A setting of a sweep: its index, its values, and its results over seeds."""

    setting: int
    values: dict[str, float]
    episode_return: Interval
    solved: float | None
    num_near_target: int | None
    num_failed: int
    causes: tuple[str, ...] = ()
    """What first was not finite, of the first few that failed in the sweep."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A finished sweep; `metrics` and `returns` are NumPy, `[settings, seeds, ...]`."""

    configs: Config
    values: dict[str, Float[ndarray, " settings"]]
    metrics: Metrics
    record_updates: Int[ndarray, " records"]
    returns: Float[ndarray, "settings seeds"]
    noise: Float[ndarray, "settings seeds"] | None
    """How far each return may be off: `seed_noise` of its episodes, None without episodes."""
    failed: ndarray
    seed_ids: tuple[int, ...]
    root: int
    directory: Path
    target_return: float | None
    times: Times
    updates: int
    """Updates trained: all, unless a signal stopped the sweep, or no agent was left."""
    identity: Identity | None = None
    causes: Mapping[tuple[int, int], str] = dataclasses.field(default_factory=dict)
    """What first was not finite, by setting and index of the seed, of the first few that failed."""

    @property
    def order(self) -> list[int]:
        """The indices of the settings, best first, by the IQM over seeds of their return.

        Here a seed without a return counts as worse than all others.
        """
        scores = iqm(fill_worst(self.returns, drop_nan(self.returns.ravel())).T)
        return np.argsort(-scores, kind="stable").tolist()

    def ranking(self) -> list[RankedSetting]:
        """The settings, best first, with the interval over the seeds that have a return."""
        return [
            RankedSetting(
                setting=setting,
                values={name: float(column[setting]) for name, column in self.values.items()},
                episode_return=return_iqm(self.returns[setting]),
                solved=share_solved(self.returns[setting], self.target_return),
                num_near_target=count_near_target(
                    self.returns[setting],
                    None if self.noise is None else self.noise[setting],
                    self.target_return,
                ),
                num_failed=int(np.sum(self.failed[setting])),
                causes=tuple(
                    dict.fromkeys(why for where, why in self.causes.items() if where[0] == setting)
                ),
            )
            for setting in self.order
        ]

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw a learning curve for each setting, and save it as `sweep.png` in the directory.

        Seeds that failed are left out, and the labels count them.
        """
        from purerl.experiment.report import figures

        config, order = self.configs, self.order
        num_settings, num_seeds = self.returns.shape
        returns, counts = self.metrics.episode_return, self.metrics.num_episodes
        figure = figures.sweep_curves(
            self.record_updates * float(config.env_steps_per_update),
            [returns[setting][~self.failed[setting]] for setting in order],
            [counts[setting][~self.failed[setting]] for setting in order],
            [self._label(setting) for setting in order],
            title=f"{env_name(config)}, {config.algorithm.name}: {num_settings} settings, "
            f"{num_seeds} seeds each",
            target_return=self.target_return,
        )
        figures.save_figure(figure, Path(path or self.directory / FIGURE), self.identity)
        return figure

    def _label(self, setting: int) -> str:
        values = [f"{name} {column[setting]:.3g}" for name, column in self.values.items()]
        num_failed = int(np.sum(self.failed[setting]))
        return ", ".join(values) + (f" ({num_failed} failed and left out)" if num_failed else "")


def write_sweep(result: Sweep) -> None:
    """Write a sweep's metrics and ranking into its directory, and then draw its figure.

    Beside the metrics stand `final_return` and `failed`, `[settings, seeds]`.
    """
    assert result.identity is not None
    arrays = (
        result.identity.arrays()
        | vars(result.metrics)
        | {
            **{name.replace(".", "_"): column for name, column in result.values.items()},
            "seed_ids": np.asarray(result.seed_ids),
            "final_return": result.returns,
            "failed": result.failed,
        }
    )
    files.write_arrays(result.directory / files.METRICS, arrays)
    summary = {
        **result.identity._asdict(),
        "ranking": [
            ranked._asdict() | {"episode_return": ranked.episode_return._asdict()}
            for ranked in result.ranking()
        ],
        "target_return": result.target_return,
        "root": result.root,
        "num_seeds": len(result.seed_ids),
        "updates": result.updates,
        "env_steps": result.updates * result.configs.env_steps_per_update,
        "times": result.times._asdict(),
    }
    files.write_checked_json(result.directory / files.SWEEP, summary)
    draw({result.directory / FIGURE: result.plot}, "the ranking is written")
