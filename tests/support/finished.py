"""Runs that are finished, for the tests of what reads them."""

import shutil
from typing import Any

import numpy as np

import purerl
from purerl.experiment.store import files
from purerl.experiment.store.files import read_checked_json, write_checked_json

SMALL: Any = {"num_envs": 4, "rollout_length": 8, "total_steps": 4 * 8 * 6, "hidden": (8,)}


def train(directory, algo="vpg", env: Any = "CartPole-v1", seeds=4, **options: Any):
    config = purerl.preset(env, algo, **SMALL)
    how: Any = {"evaluation_episodes": 2, "progress": False, "target_return": 20.0}
    return purerl.run(config, seeds, directory, **(how | options))


def altered(
    source,
    directory,
    *,
    env="CartPole-v1",
    algo="vpg",
    greedy=True,
    header: Any = None,
    config: Any = None,
    **returns: Any,
):
    """A copy of a finished run that tells another story: no test needs to train it.

    `header` and `config` are what its header then says. `returns` are those of seeds, such as
    `seed_1=12.0`; None for a seed that failed.
    """
    shutil.copytree(source, directory)
    told = read_checked_json(directory / files.HEADER)
    told["config"]["algorithm"]["name"] = algo
    told["config"] |= config or {}
    write_checked_json(directory / files.HEADER, told | {"env": env} | (header or {}))
    summary = read_checked_json(directory / files.SUMMARY)
    arrays = files.read_arrays(directory / files.METRICS)
    for name, value in returns.items():
        seed = int(name.removeprefix("seed_"))
        summary["seeds"][seed]["episode_return"] = value
        arrays["failed_at"][seed] = 3 if value is None else -1
        if value is None:
            arrays["episode_return"][seed, 3:] = np.nan
    digest = files.write_arrays(directory / files.METRICS, arrays)
    write_checked_json(directory / files.SUMMARY, summary | {"greedy": greedy, "metrics": digest})
    return directory
