"""What the presets learn: many seeds of each, with intervals, as JSON and a figure.

    python benchmarks/learning.py                            # every preset, 32 seeds
    python benchmarks/learning.py CartPole-v1:ppo --seeds 64
    python benchmarks/learning.py --table                    # the table of what is in the results

Each preset leaves `learning_ENV_ALGO.json` and `.png` in the output folder.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from arguments import count
from surroundings import surroundings

import purerl
from purerl.config.presets import PRESETS, TARGETS
from purerl.config.settings import HYPER_DEFAULTS
from purerl.experiment.hosts.startup import use_all_cores
from purerl.experiment.report.format import format_interval, format_number
from purerl.experiment.report.statistics import return_iqm
from purerl.experiment.store.files import write_json

RESULTS = Path(__file__).parent / "results"

# Of the agents that gymnax publishes, https://github.com/RobertTLange/gymnax.
PUBLISHED = {
    "CartPole-v1": 500.0,
    "Acrobot-v1": -80.0,
    "Pendulum-v1": -130.0,
    "MountainCar-v0": -118.0,
    "MountainCarContinuous-v0": 92.0,
    "Catch-bsuite": 1.0,
    "Breakout-MinAtar": 28.0,
}


def learn(env: str, algo: str, seeds: int, output: Path, root: int) -> dict[str, Any]:
    """Train a preset through `purerl.run`, and write what came of it."""
    config = purerl.preset(env, algo)
    name = f"learning_{env}_{algo}"
    with tempfile.TemporaryDirectory() as directory:
        run = purerl.run(
            config,
            seeds,
            directory,
            root=root,
            evaluation_episodes=128,
            target_return=TARGETS.get(env),
        )
        run.plot(output / f"{name}.png")
    summary = run.summary()
    result = {
        "env": env,
        "algo": algo,
        "seeds": seeds,
        "root": root,
        "greedy_return": summary.episode_return._asdict(),
        "target_return": summary.target_return,
        "share_at_target": summary.solved,
        "num_near_target": summary.num_near_target,
        "published_return": PUBLISHED.get(env),
        "failed_seeds": summary.failed_seeds,
        "returns": run.final_returns(),
        "env_steps_per_seed": config.env_steps,
        "steps_per_second": summary.steps_per_second,
        "seconds": summary.times._asdict(),
        "settings": dict(PRESETS[env, algo]),
        "hyperparameters": {name: float(getattr(config.hyper, name)) for name in HYPER_DEFAULTS},
        **surroundings(),
    }
    write_json(output / f"{name}.json", result)
    return result


def table(output: Path) -> str:
    """The results in a folder as a table in Markdown, in the order of the presets."""
    lines = [
        "| environment | algorithm | seeds | env steps a seed | greedy return, IQM [95% interval] "
        "| published | target | seeds at target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for env, algo in PRESETS:
        path = output / f"learning_{env}_{algo}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        interval = return_iqm(np.array(result["returns"], float))
        target, share = result["target_return"], result["share_at_target"]
        published = result["published_return"]
        cells = [
            env,
            f"`{algo}`",
            str(result["seeds"]),
            format_number(result["env_steps_per_seed"]),
            format_interval(interval),
            "–" if published is None else f"{published:g}",
            "–" if target is None else f"{target:g}",
            "–" if share is None else f"{share:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", help="ENV:ALGO, by default all")
    parser.add_argument("--seeds", type=count, default=32)
    parser.add_argument(
        "--root", type=int, default=1, help="the sweeps that found the presets used 0"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="train nothing, print the table")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.table:
        use_all_cores()
        names = [tuple(each.split(":")) for each in options.presets] or list(PRESETS)
        for env, algo in names:
            learn(env, algo, options.seeds, options.output, options.root)
    print(table(options.output))


if __name__ == "__main__":
    main()
