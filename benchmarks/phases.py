"""Where does the time of a training step go?

A step is taken apart into its phases, each compiled as a program of its own and mapped over the
seeds as `purerl.train_seeds` maps training; programs take turns, and each gets what the one before
made. Times are of one update of all seeds, the median of the repeats.

**rollout**: `collect`. **estimate**: the baseline's values, the advantage, the rollout laid out as
rows, and their shuffles for minibatches. **policy update**, **baseline update**: all epochs and
minibatches of the one and of the other network. **sum**: these four. **whole step**: `train_step`
in one program, which is more work: metrics, and the check that all is finite. **step in a chunk**:
a step of `advance` over several updates, also in one program. What the sum is above the whole step
is what one program saves: phases that need not leave their results in memory for the next, with
seeds whose arrays stay in the cache from phase to phase.

    python benchmarks/phases.py
    python benchmarks/phases.py --algo ppo --seeds 16 --envs 64 --repeats 20

A `jax.profiler` trace of a whole step of one seed on each device is left in `runs/profile`, for
`xprof` or TensorBoard.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from arguments import count
from surroundings import surroundings
from text_tables import show_table

import purerl
from purerl.compute.mapping import block_size, map_seeds, program_over_seeds
from purerl.compute.mesh import Layout, seed_mesh
from purerl.experiment.hosts.startup import use_all_cores
from purerl.measuring.floors import Updates
from purerl.measuring.spreads import spread
from purerl.rollout import collect
from purerl.update import make_batch, minibatch_rows, rollout_values, update_baseline, update_policy

TOP = Path(__file__).resolve().parents[1]
PHASES = ("rollout", "estimate", "policy update", "baseline update")


def rollout(state: Any, config: Any, layout: Layout) -> Any:
    """The transitions of one update of one agent, and the environments after them."""
    policy, envs = state.learner.policy, state.envs
    carry, transitions, episodes = collect(state.key, policy, envs, config, layout)
    return transitions, carry, episodes


def estimate(state: Any, transitions: Any, config: Any, layout: Layout) -> Any:
    """What the losses take, of a rollout, and the rows of each minibatch."""
    baseline = state.learner.baseline
    value, next_value = None, None
    if baseline is not None:
        value, next_value = rollout_values(baseline, transitions, layout)
    made = config.estimate(transitions, value, next_value, config.hyper)
    batch = make_batch(transitions, value, made, layout)
    return batch, minibatch_rows(state.key, config, layout)


def policy_update(state: Any, batch: Any, rows: Any, config: Any, layout: Layout) -> Any:
    """The policy after its epochs."""
    return update_policy(state.learner, batch, rows, config, layout)


def baseline_update(state: Any, batch: Any, rows: Any, config: Any, layout: Layout) -> Any:
    """The baseline after its epochs."""
    return update_baseline(state.learner, batch, rows, config, layout)


def programs(keys: Any, config: Any, chunk: int) -> dict[str, Callable[[], Any]]:
    """Each phase as a program with its inputs, and the whole step; all compiled and run once."""
    mesh = seed_mesh()

    def mapped(function: Callable[..., Any], *batched: Any) -> Callable[[], Any]:
        how: Any = {"block": block_size(config.num_envs), "with_layout": True}
        program = program_over_seeds(function, mesh, num_batched=len(batched), **how)
        return lambda: jax.block_until_ready(program(*batched, config))

    state = mapped(purerl.init, keys)()
    made = {"rollout": mapped(rollout, state)}
    transitions = made["rollout"]()[0]
    made["estimate"] = mapped(estimate, state, transitions)
    batch, rows = made["estimate"]()
    made["policy update"] = mapped(policy_update, state, batch, rows)
    if config.algorithm.has_baseline:
        made["baseline update"] = mapped(baseline_update, state, batch, rows)
    made["whole step"] = mapped(purerl.train_step, state)
    made["step in a chunk"] = mapped(Updates(chunk), state)
    for run in made.values():
        run()
    return made


def measure(made: dict[str, Callable[[], Any]], repeats: int, chunk: int) -> dict[str, list[float]]:
    """Seconds of one update in each program, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(repeats):
        for name, run in made.items():
            start = time.perf_counter()
            run()
            updates = chunk if name == "step in a chunk" else 1
            seconds[name].append((time.perf_counter() - start) / updates)
    return seconds


def summed(seconds: dict[str, list[float]]) -> list[float]:
    """The phases of each repeat together."""
    phases = [seconds[name] for name in PHASES if name in seconds]
    return [sum(each) for each in zip(*phases, strict=True)]


def table(seconds: dict[str, list[float]], env_steps: int) -> str:
    """A line a phase: milliseconds, share of the sum, and env steps a second at that pace."""
    everything = {name: each for name, each in seconds.items() if name in PHASES}
    everything["sum of the phases"] = summed(seconds)
    everything |= {name: each for name, each in seconds.items() if name not in PHASES}
    total = spread(everything["sum of the phases"]).median
    rows = []
    for name, each in everything.items():
        middle = spread(each).median
        rows.append(
            [
                name,
                spread(each).show(1e-3, 1),
                f"{100 * middle / total:.0f} %",
                f"{env_steps / middle / 1e6:.2f}",
            ]
        )
    return show_table(["", "ms, median [range]", "of the sum", "M env steps/s"], rows)


def trace(folder: Path, keys: Any, config: Any) -> None:
    """Leave a profile of one whole step, of few seeds: on a CPU it has an entry for every loop."""
    program = program_over_seeds(purerl.train_step, seed_mesh(), with_layout=True)
    state, _ = jax.block_until_ready(program(map_seeds(purerl.init, keys, config), config))
    with jax.profiler.trace(str(folder)):
        jax.block_until_ready(program(state, config))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--algo", choices=["vpg", "ppo", "a2c", "reinforce"], default="vpg")
    parser.add_argument("--seeds", type=count, default=64)
    parser.add_argument("--envs", type=count, help="by default the preset's")
    parser.add_argument("--chunk", type=count, default=8, help="updates of the step in a chunk")
    parser.add_argument("--repeats", type=count, default=15)
    parser.add_argument("--trace", type=Path, default=TOP / "runs" / "profile")
    parser.add_argument("--output", type=Path, help="write every repeat here, as JSON")
    options = parser.parse_args()
    use_all_cores()
    sizes = {} if options.envs is None else {"num_envs": options.envs}
    config = purerl.preset(options.env, options.algo, **sizes)
    # A multiple of the devices, so that no seed is trained twice.
    devices = jax.local_device_count()
    seeds = -(-options.seeds // devices) * devices
    made = programs(purerl.seed_keys(0, seeds), config, options.chunk)
    seconds = measure(made, options.repeats, options.chunk)
    print(
        f"{options.env} {options.algo}, {config.num_envs} envs x {config.rollout_length}, "
        f"{seeds} seeds; one update of all seeds"
    )
    print(table(seconds, config.env_steps_per_update * seeds))
    trace(options.trace, purerl.seed_keys(0, devices), config)
    print(f"trace: {options.trace}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "surroundings": surroundings(),
            "env": options.env,
            "algo": options.algo,
            "seeds": seeds,
            "num_envs": config.num_envs,
            "rollout_length": config.rollout_length,
            "chunk": options.chunk,
            "seconds": seconds,
        }
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
