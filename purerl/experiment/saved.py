"""Finished runs, read from their directories: returns, curves, tables and scores."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from purerl.experiment import files
from purerl.experiment.header import find_header
from purerl.experiment.loggers import require
from purerl.experiment.records import EVALUATED, UPDATES
from purerl.experiment.statistics import (
    Interval,
    iqm,
    probability_of_improvement,
    score_interval,
)


class Saved(NamedTuple):
    """What a run directory tells without building anything: the returns of a finished run."""

    directory: Path
    env: str
    algo: str
    seed_ids: tuple[int, ...]
    returns: Float[ndarray, " seeds"]
    """Greedy mean of each seed, or last in training; NaN where the seed failed."""
    target_return: float | None
    env_steps_per_update: int
    arrays: dict[str, ndarray]
    """`metrics.npz`: each metric `[seeds, records]`, evaluations, `seed_ids`, `failed_at`."""

    @property
    def known(self) -> Float[ndarray, " seeds"]:
        """The returns of the seeds that have one."""
        return self.returns[~np.isnan(self.returns)]


def read_run(directory: str | Path) -> Saved:
    """Read a finished run.

    **Raises:** `ValueError` where the directory holds none.
    """
    directory = Path(directory)
    header = find_header(directory)
    try:
        assert header
        summary = json.loads((directory / files.SUMMARY).read_text())
        with np.load(directory / files.METRICS) as saved:
            arrays = dict(saved)
        config = header["config"]
        returns = [each["episode_return"] for each in summary["seeds"]]
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise ValueError(
            f"{str(directory)!r} holds no finished run; finish it: purerl resume {directory}"
        ) from error
    return Saved(
        directory=directory,
        env=header["env"],
        algo=config["algorithm"]["name"],
        seed_ids=tuple(header["seeds"]),
        returns=np.array([np.nan if value is None else value for value in returns]),
        target_return=header["target_return"],
        env_steps_per_update=config["num_envs"] * config["rollout_length"],
        arrays=arrays,
    )


class Compared(NamedTuple):
    """One of several runs: statistics over the seeds that have a return, and against the first."""

    run: Saved
    iqm: Interval
    mean: Interval
    median: Interval
    solved: float | None
    improvement: Interval | None
    """The chance that a seed of this run scores more than one of the first; None for that."""
    num_failed: int


def compare_runs(directories: Sequence[str | Path]) -> list[Compared]:
    """Compare finished runs of one environment.

    **Raises:** `ValueError` where one is not finished, or they are of several environments.
    """
    runs = [read_run(directory) for directory in directories]
    envs = list(dict.fromkeys(run.env for run in runs))
    if len(envs) != 1:
        raise ValueError(f"runs of {' and '.join(envs)} cannot be compared; name those of one.")
    first = runs[0]
    compared = []
    for run in runs:
        scores = run.known[:, None]
        if not len(scores):
            raise ValueError(f"{str(run.directory)!r}: no seed has a return; leave it out.")
        improvement = None
        if run is not first:
            improvement = probability_of_improvement(scores, first.known[:, None])
        target = run.target_return
        compared.append(
            Compared(
                run=run,
                iqm=score_interval(scores, iqm),
                mean=score_interval(scores, np.mean),
                median=score_interval(scores, np.median),
                solved=None if target is None else float(np.mean(run.returns >= target)),
                improvement=improvement,
                num_failed=int(np.sum(run.arrays["failed_at"] >= 0)),
            )
        )
    return compared


def write_table(run: Saved, path: str | Path) -> None:
    """Write every record of every seed as a row, tidy: CSV, or Parquet where the name says so.

    Columns are `env`, `algo`, `seed`, `updates`, `env_steps` and the metrics; in the rows of
    evaluations, `greedy_return` and `sampled_return`.
    """
    path = Path(path)
    columns = _columns(run)
    if path.suffix == ".parquet":
        require("pyarrow", "parquet")
        import pyarrow
        import pyarrow.parquet

        files.write_whole(
            path, lambda file: pyarrow.parquet.write_table(pyarrow.table(columns), file)
        )
        return
    if path.suffix != ".csv":
        raise ValueError(f"metrics = {str(path)!r} must end in .csv or .parquet.")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(["" if value != value else value for value in row])


def _columns(run: Saved) -> dict[str, list[Any]]:
    arrays = run.arrays
    updates = arrays[UPDATES]
    num_seeds, num_records = len(run.seed_ids), len(updates)
    columns: dict[str, list[Any]] = {
        "env": [run.env] * (num_seeds * num_records),
        "algo": [run.algo] * (num_seeds * num_records),
        "seed": np.repeat(run.seed_ids, num_records).tolist(),
        "updates": np.tile(updates, num_seeds).tolist(),
        "env_steps": np.tile(updates * run.env_steps_per_update, num_seeds).tolist(),
    }
    for name, array in arrays.items():
        if array.ndim == 2 and array.shape == (num_seeds, num_records):
            columns[name] = array.reshape(-1).tolist()
    for kind in ("greedy", "sampled"):
        if f"{kind}_episode_return" in arrays:
            column = np.full((num_seeds, num_records), np.nan)
            at = np.searchsorted(updates, arrays[EVALUATED])
            column[:, at] = arrays[f"{kind}_episode_return"].mean(axis=-1)
            columns[f"{kind}_return"] = column.reshape(-1).tolist()
    return columns


def write_scores(runs: Sequence[Saved], path: str | Path) -> None:
    """Write final returns as rliable takes them: an array `[seeds, environments]` an algorithm.

    The environments stand in the array `envs`. Returns are the environments' own, not normalised.

    **Raises:** `ValueError` where an algorithm's runs differ in their number of seeds, or two are
    of one environment.
    """
    envs = sorted({run.env for run in runs})
    scores: dict[str, ndarray] = {}
    for algo in dict.fromkeys(run.algo for run in runs):
        of_env = {run.env: run.returns for run in runs if run.algo == algo}
        sizes = {len(returns) for returns in of_env.values()}
        if len(of_env) != sum(run.algo == algo for run in runs) or len(sizes) != 1:
            raise ValueError(
                f"scores of {algo} need one run for each environment, all with as many seeds."
            )
        if set(of_env) != set(envs):
            missing = ", ".join(sorted(set(envs) - set(of_env)))
            raise ValueError(f"scores of {algo} lack {missing}; name a run of each.")
        scores[algo] = np.stack([of_env[env] for env in envs], axis=1)
    files.write_arrays(Path(path), {**scores, "envs": np.array(envs)})
