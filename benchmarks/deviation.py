"""Does a standard deviation that depends on the observation learn as well as a parameter?

    python benchmarks/deviation.py                           # two environments, 32 seeds
    python benchmarks/deviation.py Pendulum-v1 --steps 300000 --seeds 8

The PPO preset of each environment, with `std_from_obs` False and True: a table in Markdown of the
greedy returns over seeds, of their difference, of the standard deviation in a last rollout (the
median over seeds and steps), and of the largest KL of an update. The same goes to
`results/deviation.json`.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from arguments import count
from surroundings import surroundings

import purerl
from purerl.experiment.hosts.startup import use_all_cores
from purerl.experiment.report.format import format_interval
from purerl.experiment.report.statistics import difference_of_iqms, iqm_interval
from purerl.experiment.store.files import write_json
from purerl.rollout import collect

OUTPUT = Path(__file__).parent / "results" / "deviation.json"
ENVS = ("MountainCarContinuous-v0", "Pendulum-v1")
NAMES = {False: "a parameter", True: "from the observation"}
EPISODES = 128  # of each agent, greedy
HEADER = ("environment", "deviation", "greedy return, IQM [95%]", "median deviation", "largest KL")


def measure(config: purerl.Config, seeds: int, root: int) -> dict[str, Any]:
    """The greedy return of each seed, and its median deviation and its largest KL."""
    states, metrics = purerl.train_seeds(purerl.seed_keys(root, seeds), config)

    @jax.jit
    @jax.vmap
    def judge(state):
        policy = state.learner.policy
        played = purerl.evaluate(state.key, policy, config, num_episodes=EPISODES)
        _, rollout, _ = collect(state.key, policy, state.envs, config)
        scale = jax.vmap(jax.vmap(lambda obs: policy(obs).scale))(rollout.obs)
        return played.episode_return.mean(), jnp.median(scale)

    returns, deviations = (np.asarray(x, float) for x in judge(states))
    largest_kl = np.nanmax(np.asarray(metrics.approx_kl, float), axis=1)
    return {
        "returns": returns,
        "deviations": deviations,
        "largest_kl": largest_kl,
        "failed_seeds": np.flatnonzero(np.asarray(states.failed_at) >= 0),
    }


def table(results: dict[str, Any]) -> str:
    """What was measured, in Markdown."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for env, found in results.items():
        for name, each in found.items():
            cells = [
                env,
                name,
                format_interval(iqm_interval(each["returns"])),
                f"{np.median(each['deviations']):.2f}",
                f"{np.max(each['largest_kl']):.2g}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        if len(found) == 2:
            fixed, given = (found[name]["returns"] for name in NAMES.values())
            gain = format_interval(difference_of_iqms(given, fixed))
            lines.append(f"| {env} | the second less the first | {gain} | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("envs", nargs="*", default=list(ENVS))
    parser.add_argument("--steps", type=count, help="by default those of the preset")
    parser.add_argument("--seeds", type=count, default=32)
    parser.add_argument("--root", type=int, default=1, help="the presets were found with 0")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    use_all_cores()
    results: dict[str, Any] = {}
    for env in options.envs:
        config = purerl.preset(env, "ppo")
        if options.steps:
            config = config.replace(total_steps=options.steps)
        for std_from_obs, name in NAMES.items():
            setting = config.replace(std_from_obs=std_from_obs)
            results.setdefault(env, {})[name] = measure(setting, options.seeds, options.root)
            write_json(
                options.output,
                {"seeds": options.seeds, "root": options.root, "steps": options.steps}
                | {"results": results}
                | surroundings(),
            )
    print(table(results))


if __name__ == "__main__":
    main()
