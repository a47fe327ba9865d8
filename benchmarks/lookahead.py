"""How far REINFORCE looks ahead, and what share of the steps it drops for that.

    python benchmarks/lookahead.py

A table in Markdown of CartPole-v1 with its preset, and of Catch with the defaults in 100 k steps:
rollout length T, look-ahead H, time limit L, γ^H, and the share of steps with weight 0 in a rollout
before training and after it, over all seeds. The same goes to `results/lookahead.json`.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
from arguments import count
from surroundings import surroundings

import purerl
from purerl.experiment.hosts.startup import use_all_cores
from purerl.experiment.store.files import write_json
from purerl.rollout import collect

OUTPUT = Path(__file__).parent / "results" / "lookahead.json"
RUNS: dict[str, dict[str, Any]] = {"CartPole-v1": {}, "Catch-bsuite": {"total_steps": 100_000}}
HEADER = (
    "environment",
    "T × envs",
    "updates",
    "H",
    "L",
    "γ^H",
    "dropped before training",
    "after it",
)


@jax.jit
def share_dropped(states: Any, config: Any) -> Any:
    """The share of steps with weight 0 in the next rollouts of all agents."""

    def of_one(state):
        _, rollout, _ = collect(state.key, state.learner.policy, state.envs, config)
        return config.estimate(rollout, None, None, config.hyper).weight

    return 1 - jax.vmap(of_one)(states).mean()


def measure(config: purerl.Config, seeds: int, root: int = 0) -> dict[str, Any]:
    """H, L, γ^H and the shares dropped by agents before and after training."""
    keys = purerl.seed_keys(root, seeds)
    before = jax.vmap(purerl.init, (0, None))(keys, config)
    after, _ = purerl.train_seeds(keys, config)
    half = -(-config.rollout_length // 2)
    lookahead = min(config.lookahead or half, config.time_limit or np.inf)
    return {
        "rollout_length": config.rollout_length,
        "num_envs": config.num_envs,
        "num_updates": config.num_updates,
        "lookahead": lookahead,
        "time_limit": config.time_limit,
        "discounted": float(config.hyper.discount) ** lookahead,
        "dropped_before": float(share_dropped(before, config)),
        "dropped_after": float(share_dropped(after, config)),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results by environment as a table in Markdown."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for env, each in results.items():
        cells = [
            env,
            f"{each['rollout_length']} × {each['num_envs']}",
            str(each["num_updates"]),
            str(each["lookahead"]),
            "–" if each["time_limit"] is None else str(each["time_limit"]),
            f"{each['discounted']:.2g}",
            f"{each['dropped_before']:.0%}",
            f"{each['dropped_after']:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=count, default=8)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    use_all_cores()
    results = {
        env: measure(purerl.preset(env, "reinforce", **settings), options.seeds)
        for env, settings in RUNS.items()
    }
    write_json(options.output, {"seeds": options.seeds, "runs": results, **surroundings()})
    print(table(results))


if __name__ == "__main__":
    main()
