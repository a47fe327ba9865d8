"""Finished runs as files for other programs: a tidy table, and rliable's scores."""

import csv
import dataclasses
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from purerl.checks import require
from purerl.experiment.report.comparison import require_one_kind
from purerl.experiment.report.format import ranges
from purerl.experiment.store import files
from purerl.experiment.store.records import EVALUATED, UPDATES, Saved
from purerl.types import Metrics


def write_table(run: Saved, path: str | Path) -> None:
    """Write every record of every seed as a row, tidy: CSV, or Parquet where the name says so.

    Columns are `env`, `algo`, `seed`, `failed_at` (the update in which the seed failed, −1 where it
    has not), `updates`, `env_steps` and the metrics; in the rows of evaluations, `greedy_return`
    and `sampled_return`.

    **Raises:** `ValueError` where the name says neither.
    """
    path = Path(path)
    columns = _columns(run)
    if path.suffix == ".parquet":
        require("pyarrow", "parquet")
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table(columns)
        files.write_whole(path, lambda file: pyarrow.parquet.write_table(table, file))
        return
    if path.suffix != ".csv":
        raise ValueError(f"metrics = {str(path)!r} must end in .csv or .parquet.")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["" if value != value else value for value in row])
    files.write_whole(path, lambda file: file.write(text.getvalue().encode()))


def _columns(run: Saved) -> dict[str, list[Any]]:
    arrays = run.arrays
    updates = arrays[UPDATES]
    num_seeds, num_records = len(run.seed_ids), len(updates)
    columns: dict[str, list[Any]] = {
        "env": [run.env] * (num_seeds * num_records),
        "algo": [run.algo] * (num_seeds * num_records),
        "seed": np.repeat(run.seed_ids, num_records).tolist(),
        "failed_at": np.repeat(arrays["failed_at"], num_records).tolist(),
        "updates": np.tile(updates, num_seeds).tolist(),
        "env_steps": np.tile(updates * run.env_steps_per_update, num_seeds).tolist(),
    }
    for field in dataclasses.fields(Metrics):
        columns[field.name] = arrays[field.name].reshape(-1).tolist()
    for kind in ("greedy", "sampled"):
        if f"{kind}_episode_return" in arrays:
            column = np.full((num_seeds, num_records), np.nan)
            at = np.searchsorted(updates, arrays[EVALUATED])
            column[:, at] = arrays[f"{kind}_episode_return"].mean(axis=-1)
            columns[f"{kind}_return"] = column.reshape(-1).tolist()
    return columns


def write_scores(runs: Sequence[Saved], path: str | Path) -> None:
    """Write final returns as rliable takes them: an array `[seeds, environments]` an algorithm.

    The environments stand in the array `envs`. Returns are the environments' own, not normalised;
    where a seed has none its score is NaN, and a warning names it.

    **Raises:** `ValueError` where an algorithm's runs differ in their number of seeds, two are of
    one environment, or the returns are not of one kind.
    """
    require_one_kind(runs)
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
    for run in runs:
        without = sorted((*run.failed_seeds, *run.silent_seeds))
        if without:
            warnings.warn(
                f"{run.directory}: seeds without a return: {ranges(without)}; their scores are "
                f"NaN, and so is all that rliable makes of them.",
                stacklevel=2,
            )
