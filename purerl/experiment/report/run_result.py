"""A finished run: its states, metrics and evaluations, its summary, and the files it leaves."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.checks import seed_index
from purerl.config.config import Config
from purerl.envs import action_space
from purerl.evaluation import Evaluation
from purerl.experiment.report.curves import fill_forward
from purerl.experiment.report.drawing import draw
from purerl.experiment.report.format import format_returns
from purerl.experiment.report.statistics import (
    Interval,
    count_near_target,
    return_iqm,
    seed_noise,
    share_solved,
)
from purerl.experiment.store import files
from purerl.experiment.store.header import env_name
from purerl.experiment.store.identity import Identity
from purerl.experiment.store.paths import shown
from purerl.experiment.store.records import Evaluations, Records
from purerl.networks.network import TrainedPolicy
from purerl.training import TrainState
from purerl.types import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Times(NamedTuple):
    """Wall time in seconds, of the process that finished the run."""

    compile: float
    run: float
    evaluate: float


class Summary(NamedTuple):
    """A run in a few numbers.

    `episode_return` is the IQM over seeds of each seed's mean greedy return; without an evaluation,
    of its last return in training. It leaves out `failed_seeds` and `seeds_without_episode`.
    `updates` are those trained: all, unless no agent was left before.
    `solved` is the share of all seeds that reach `target_return`, None without a target;
    `num_near_target` is the number of those that are nearer to it than the 95% interval of their
    mean over episodes, so that other episodes could have decided otherwise.
    """

    episode_return: Interval
    greedy: bool
    solved: float | None
    target_return: float | None
    num_near_target: int | None
    num_seeds: int
    failed_seeds: tuple[int, ...]
    seeds_without_episode: tuple[int, ...]
    updates: int
    env_steps: int
    steps_per_second: float
    num_unfinished: int
    """Greedy episodes, of seeds that have not failed, that the environment did not end within the
    time limit that it declares."""
    times: Times


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run; `states` and `metrics` (NumPy, `[seeds, records]`) follow `seed_ids`.

    `record_updates` `[records]` are the updates at the end of each record, `log_every` after the
    one before, or fewer where a budget ended.
    `times` and `resumed_at` are those of the process that finished the run: `resumed_at` is the
    number of updates that it found, 0 where it began the run. `causes` says what first was not
    finite, by seed, of the first few that failed.
    """

    config: Config
    states: TrainState
    metrics: Metrics
    record_updates: ndarray
    evaluations: Evaluations | None
    seed_ids: tuple[int, ...]
    directory: Path
    target_return: float | None
    times: Times
    resumed_at: int = 0
    identity: Identity | None = None
    """Which run it is: the id in every file of it, and how often it has gone on."""
    provenance: Sequence[Mapping[str, Any]] = ()
    """Where the run went on under other settings or on another machine: for each part of it
    `first_update`, `config` and `where`. Empty where all of it has the same."""
    causes: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        summary, returns = self.summary(), self.final_returns()
        kind = "greedy return" if summary.greedy else "last return in training"
        value = format_returns(summary.episode_return, returns, len(summary.failed_seeds))
        return (
            f"Run({summary.num_seeds} seeds, {self.updates} of {self.config.num_updates} updates, "
            f"{kind}, IQM {value}, in {shown(self.directory)}\n{self.config!r})"
        )

    @property
    def updates(self) -> int:
        """Updates trained: all, unless no agent was left before."""
        return int(self.record_updates[-1])

    @property
    def evaluation(self) -> Evaluation | None:
        """The greedy episodes after training, `[seeds, episodes]`; None where none were played."""
        if self.evaluations is None or self.evaluations.updates[-1] != self.config.num_updates:
            return None
        return jax.tree.map(lambda leaf: leaf[:, -1], self.evaluations.greedy)

    @property
    def failed_seeds(self) -> tuple[int, ...]:
        """The ids of the seeds that stopped being finite."""
        return tuple(compress(self.seed_ids, np.asarray(self.states.failed_at) >= 0))

    def policy(self, seed: int) -> TrainedPolicy:
        """The trained policy of a seed: `run.policy(3).act(obs)` is an action."""
        index = seed_index(seed, self.seed_ids)
        network = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), self.states.learner.policy)
        return TrainedPolicy(network, action_space(self.config.env, self.config.env_params))

    def final_returns(self) -> Float[ndarray, " seeds"]:
        """A return for each seed: mean greedy, or last in training; NaN where the seed failed."""
        if self.evaluation is not None:
            returns = np.asarray(self.evaluation.episode_return).mean(axis=1)
        else:
            returns = fill_forward(self.metrics.episode_return)[:, -1]
        return np.where(np.isin(self.seed_ids, self.failed_seeds), np.nan, returns)

    def summary(self) -> Summary:
        """The run in a few numbers."""
        returns, evaluation = self.final_returns(), self.evaluation
        is_failed = np.asarray(self.states.failed_at) >= 0
        noise, num_unfinished = None, 0
        if evaluation is not None:
            noise = seed_noise(np.asarray(evaluation.episode_return))
            num_unfinished = int(np.sum(np.where(is_failed, 0, evaluation.num_unfinished)))
        has_no_episode = np.isnan(returns) & ~is_failed
        share = 1 - self.resumed_at / self.updates  # of the updates, in `times.run`
        env_steps = self.updates * self.config.env_steps_per_update * len(self.seed_ids)
        return Summary(
            episode_return=return_iqm(returns),
            greedy=evaluation is not None,
            solved=share_solved(returns, self.target_return),
            target_return=self.target_return,
            num_near_target=count_near_target(returns, noise, self.target_return),
            num_seeds=len(self.seed_ids),
            failed_seeds=self.failed_seeds,
            seeds_without_episode=tuple(compress(self.seed_ids, has_no_episode)),
            updates=self.updates,
            env_steps=env_steps,
            steps_per_second=share * env_steps / self.times.run if share else np.nan,
            num_unfinished=num_unfinished,
            times=self.times,
        )

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw the learning curve, and save it as `learning_curve.png` in the directory.

        Seeds that failed are left out, and the title counts them.
        """
        # Here: matplotlib takes a while to import, and training does not need it.
        from purerl.experiment.report import figures

        finite = ~np.isin(self.seed_ids, self.failed_seeds)
        figure = figures.learning_curve(
            self.record_updates * float(self.config.env_steps_per_update),
            self.metrics.episode_return[finite],
            self.metrics.num_episodes[finite],
            title=self._title(),
            target_return=self.target_return,
        )
        path = Path(path or self.directory / "learning_curve.png")
        figures.save_figure(figure, path, self.identity)
        return figure

    def plot_returns(self, path: str | Path | None = None) -> "Figure":
        """Draw a histogram of the final returns, and save it as `returns.png` in the directory."""
        from purerl.experiment.report import figures

        kind = "mean greedy return" if self.evaluation is not None else "last return in training"
        figure = figures.histogram(
            self.final_returns(),
            title=self._title(),
            xlabel=f"{kind} of a seed",
            target_return=self.target_return,
        )
        figures.save_figure(figure, Path(path or self.directory / "returns.png"), self.identity)
        return figure

    def _title(self) -> str:
        failed = f", {len(self.failed_seeds)} failed and left out" if self.failed_seeds else ""
        return f"{env_name(self.config)}, {self.config.algorithm.name}{failed}"


def write_result(result: Run, records: Records) -> None:
    """Write a run's metrics and summary into its directory, and then draw its figures.

    Where the summary is there, the run is finished.
    """
    assert result.identity is not None
    failed_at = np.asarray(result.states.failed_at)
    arrays = records.arrays() | {"seed_ids": np.asarray(result.seed_ids), "failed_at": failed_at}
    arrays = result.identity.arrays() | arrays
    digest = files.write_arrays(result.directory / files.METRICS, arrays)
    summary, returns = result.summary(), result.final_returns()
    seeds = [
        {
            "seed": seed,
            "episode_return": float(value),
            "failed_at": int(failed),
            "cause": result.causes.get(seed),
        }
        for seed, value, failed in zip(result.seed_ids, returns, failed_at, strict=True)
    ]
    contents = (
        result.identity._asdict()
        | {"metrics": digest}
        | summary._asdict()
        | {
            "episode_return": summary.episode_return._asdict(),
            "times": summary.times._asdict(),
            "seeds": seeds,
            "resumed_at": result.resumed_at,
            "num_updates": result.config.num_updates,
        }
    )
    files.write_checked_json(result.directory / files.SUMMARY, contents)
    draw_figures(result)


def draw_figures(result: Run, *, missing: bool = False) -> None:
    """Draw the figures of a run, or those that are `missing`; a warning says what cannot be."""
    directory = result.directory
    plots = {
        directory / "learning_curve.png": result.plot,
        directory / "returns.png": result.plot_returns,
    }
    if missing:
        plots = {path: plot for path, plot in plots.items() if not path.exists()}
    again = f"all else is written; to draw it later: purerl resume {shlex.quote(str(directory))}"
    draw(plots, again)
