"""How many environment steps a second are trained, over algorithms, seeds and environments.

Each program is compiled, run once to warm up, and then timed several times, waiting for everything
that it returns. The table shows the median and the range of the repeats; the JSON holds them all.

    python benchmarks/throughput.py --seeds 1 16 64 --envs 16 64 --output throughput.json
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from surroundings import surroundings

import purerl
from purerl.experiment.cores import use_all_cores


def measure(algo: str, seeds: int, num_envs: int, updates: int, repeats: int) -> dict[str, Any]:
    """Time `purerl.train_seeds` on CartPole-v1 with the algorithm's preset."""
    base = purerl.preset("CartPole-v1", algo, num_envs=num_envs)
    total_steps = updates * base.env_steps_per_update
    config = purerl.preset("CartPole-v1", algo, num_envs=num_envs, total_steps=total_steps)
    start = time.perf_counter()
    jax.block_until_ready(purerl.train_seeds(purerl.seed_keys(0, seeds), config))
    first = time.perf_counter() - start
    seconds = []
    for root in range(1, repeats + 1):
        keys = jax.block_until_ready(purerl.seed_keys(root, seeds))
        start = time.perf_counter()
        jax.block_until_ready(purerl.train_seeds(keys, config))
        seconds.append(time.perf_counter() - start)
    env_steps = config.env_steps * seeds
    return {
        "algo": algo,
        "seeds": seeds,
        "num_envs": num_envs,
        "rollout_length": config.rollout_length,
        "updates": updates,
        "baseline_epochs": config.baseline_epochs if config.algorithm.has_baseline else 0,
        "env_steps": env_steps,
        "compile_seconds": first - float(np.median(seconds)),
        "run_seconds": seconds,
        "steps_per_second": [env_steps / each for each in seconds],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algos", nargs="+", default=["vpg", "reinforce"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--envs", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write JSON here")
    options = parser.parse_args()
    use_all_cores()

    rows = []
    print(
        f"{'algo':10} {'seeds':>6} {'envs':>5} {'compile s':>10} {'k steps/s, median [range]':>28}"
    )
    for algo, seeds, envs in itertools.product(options.algos, options.seeds, options.envs):
        row = measure(algo, seeds, envs, options.updates, options.repeats)
        rows.append(row)
        rate = np.array(row["steps_per_second"]) / 1e3
        spread = f"{np.median(rate):.0f} [{rate.min():.0f}, {rate.max():.0f}]"
        print(
            f"{algo:10} {seeds:6} {envs:5} {row['compile_seconds']:10.1f} {spread:>28}", flush=True
        )
    if options.output:
        result = {"surroundings": surroundings(), "rows": rows}
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
