"""Writes finished runs for other programs: a tidy table, and rliable's scores."""

import csv
import dataclasses
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from purerl.checks import require_package
from purerl.experiment.report.comparison import require_same_return_kind
from purerl.experiment.report.format import format_ranges
from purerl.experiment.store import files
from purerl.experiment.store.finished_run import FinishedRun
from purerl.experiment.store.own_files import require_writable
from purerl.experiment.store.paths import shown
from purerl.experiment.store.records import EVALUATED, UPDATES
from purerl.types import Metrics


def write_table(run: FinishedRun, path: str | Path) -> None:
    """Write a row for every record of every seed, into a .csv or .parquet file.

    Columns are `run` (its id), `env`, `algo`, `seed`, `failed_at` (the update in which the seed
    failed, −1 where it has not), `updates`, `env_steps`, `part` (from 0; a new one begins where the
    run went on under other settings or on another machine) and the metrics. Where the run was
    evaluated, `greedy_return` and `sampled_return` too, in the rows of the evaluations.

    **Raises:** `ValueError` for another suffix, or where the file is a run's own.
    """
    path = Path(path)
    require_writable("metrics", path)
    columns = _columns(run)
    if path.suffix == ".parquet":
        require_package("pyarrow", "parquet")
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table(columns)
        files.write_atomically(path, lambda file: pyarrow.parquet.write_table(table, file))
        return
    if path.suffix != ".csv":
        raise ValueError(f"metrics = {str(path)!r} must end in .csv or .parquet.")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["" if value != value else value for value in row])
    files.write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def _columns(run: FinishedRun) -> dict[str, list[Any]]:
    arrays, updates = run.arrays, run.arrays[UPDATES]
    num_seeds, num_records = len(run.seed_ids), len(updates)
    first_updates = [each["first_update"] for each in run.provenance[1:]]
    part = np.searchsorted(first_updates, updates, side="left")  # `updates` are after a record
    columns: dict[str, list[Any]] = {
        "run": [run.identity.run] * (num_seeds * num_records),
        "env": [run.env] * (num_seeds * num_records),
        "algo": [run.algo] * (num_seeds * num_records),
        "seed": np.repeat(run.seed_ids, num_records).tolist(),
        "failed_at": np.repeat(arrays["failed_at"], num_records).tolist(),
        "updates": np.tile(updates, num_seeds).tolist(),
        "env_steps": np.tile(updates * run.env_steps_per_update, num_seeds).tolist(),
        "part": np.tile(part, num_seeds).tolist(),
    }
    for field in dataclasses.fields(Metrics):
        columns[field.name] = arrays[field.name].reshape(-1).tolist()
    for actions in ("greedy", "sampled"):
        if f"{actions}_episode_return" in arrays:
            column = np.full((num_seeds, num_records), np.nan)
            evaluated_records = np.searchsorted(updates, arrays[EVALUATED])
            column[:, evaluated_records] = arrays[f"{actions}_episode_return"].mean(axis=-1)
            columns[f"{actions}_return"] = column.reshape(-1).tolist()
    return columns


def write_scores(runs: Sequence[FinishedRun], path: str | Path) -> None:
    """Write final returns as rliable takes them: one array `[seeds, environments]` an algorithm.

    The array `envs` names the environments, and `runs` the run of each algorithm in each of them.
    Returns are not normalised. A seed without a return scores NaN, and a warning names it.

    **Raises:** `ValueError` where an algorithm's runs differ in their number of seeds, two are of
    one environment, or the returns are not of one kind, or where the file is a run's own.
    """
    require_writable("scores", Path(path))
    require_same_return_kind(runs)
    envs = sorted({run.env for run in runs})
    scores: dict[str, ndarray] = {}
    ids: list[list[str]] = []
    for algo in dict.fromkeys(run.algo for run in runs):
        columns = {run.env: run.returns for run in runs if run.algo == algo}
        sizes = {len(returns) for returns in columns.values()}
        if len(columns) != sum(run.algo == algo for run in runs) or len(sizes) != 1:
            raise ValueError(
                f"scores of {algo} need one run for each environment, all with as many seeds."
            )
        missing = ", ".join(env for env in envs if env not in columns)
        if missing:
            raise ValueError(f"scores of {algo} lack {missing}; name a run of each.")
        scores[algo] = np.stack([columns[env] for env in envs], axis=1)
        by_env = {run.env: run.identity.run for run in runs if run.algo == algo}
        ids.append([by_env[env] for env in envs])
    files.write_arrays(Path(path), {**scores, "envs": np.array(envs), "runs": np.array(ids)})
    for run in runs:
        seeds = sorted((*run.failed_seeds, *run.seeds_without_episode))
        if seeds:
            warnings.warn(
                f"{shown(run.directory)}: seeds without a return: {format_ranges(seeds)}; their "
                f"scores are NaN, and so is all that rliable makes of them.",
                stacklevel=2,
            )
