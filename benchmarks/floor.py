"""What share of this machine's limits does the trainer reach?

Every limit is measured in this process, on the devices and with the environments that the trainer
has, and all take turns: limit, trainer, limit, trainer, … Rates are env steps a second over all
seeds, the median of the repeats.

**env steps alone**: the environments of all seeds step with random actions; nothing else.
**env and policy**: the same, and each action is drawn from the policy's network, written plainly:
`x @ W`, and one uniform number for each action. No transition is kept.
Both are run *as mapped*, a seed after another as `purerl.compute.mapping.map_seeds` has them, and
*side by side*, the environments of all seeds of a device in one step. The faster is the floor.
**matrix rate**: floating-point operations a second of the best matrix product of several shapes,
one on every device at once, or one at a time on one device, which may use all threads.
**FLOPs per env step**: of the networks' matrix products and convolutions; biases, activations,
losses and optimisers are left out (see `products_per_step`).
**arithmetic floor**: the matrix rate over the FLOPs per env step.
**joint floor**: env and policy at their floor, then the FLOPs of learning at the matrix rate.

    python benchmarks/floor.py
    python benchmarks/floor.py --algo ppo --seeds 16 --envs 4 --repeats 5
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from arguments import count
from jax.sharding import PartitionSpec as P
from surroundings import surroundings
from text_tables import show_table

import purerl
from purerl.compute.mapping import block_size, map_seeds
from purerl.compute.mesh import seed_mesh
from purerl.experiment.hosts.startup import use_all_cores
from purerl.measuring.floors import EnvSteps, Rollouts, Updates
from purerl.measuring.limits import matrix_programs, products_per_step
from purerl.measuring.spreads import ratio, spread, time_in_turn

RESULTS = Path(__file__).parent / "results"
HIDDEN = (64, 64)


def side_by_side(function: Callable[..., Any], mesh: Any) -> Callable[..., Any]:
    """Map a function over seeds with `vmap` on each device of a mesh."""

    def on_device(keys, config):
        return jax.vmap(function, (0, None))(keys, config)

    mapped = jax.shard_map(
        on_device, mesh=mesh, in_specs=(P("seeds"), P()), out_specs=P("seeds"), check_vma=False
    )
    return jax.jit(mapped)


def floors(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the limits and the trainer, and relate them."""
    passes = {"epochs": options.epochs} if options.algo == "ppo" else {}
    if options.algo in ("vpg", "a2c"):
        passes["baseline_epochs"] = options.baseline_epochs
    config = purerl.preset(
        "CartPole-v1",
        options.algo,
        num_envs=options.envs,
        rollout_length=options.rollout_length,
        total_steps=options.updates * options.envs * options.rollout_length,
        hidden=HIDDEN,
        **passes,
    )
    mesh = seed_mesh()
    keys = purerl.seed_keys(0, options.seeds)
    states = jax.block_until_ready(map_seeds(purerl.init, keys, config))
    alone, both = (EnvSteps(options.updates, with_policy) for with_policy in (False, True))

    def mapped(function: Callable[..., Any], batched: Any, **how: Any) -> Callable[[], Any]:
        block = block_size(config.num_envs)
        return lambda: map_seeds(function, batched, config, block=block, **how)

    programs = {
        "env steps alone, as mapped": mapped(alone, keys),
        "env and policy, as mapped": mapped(both, keys),
        "rollout": mapped(Rollouts(options.updates), states),
        "trained": mapped(Updates(options.updates), states, with_layout=True),
    }
    if options.seeds % mesh.size == 0:
        alone_beside, both_beside = side_by_side(alone, mesh), side_by_side(both, mesh)
        programs["env steps alone, side by side"] = lambda: alone_beside(keys, config)
        programs["env and policy, side by side"] = lambda: both_beside(keys, config)
    chains, flops = matrix_programs(mesh)
    programs |= chains
    for run in programs.values():
        jax.block_until_ready(run())
    seconds = time_in_turn(programs, options.repeats)
    env_steps = config.env_steps * options.seeds
    rates = {
        name: [(flops.get(name) or env_steps) / each for each in taken]
        for name, taken in seconds.items()
    }
    per_step = products_per_step(config)
    return {
        "algo": options.algo,
        "num_envs": options.envs,
        "rollout_length": options.rollout_length,
        "seeds": options.seeds,
        "updates": options.updates,
        "epochs": config.epochs,
        "baseline_epochs": config.baseline_epochs if config.algorithm.has_baseline else 0,
        "flops_per_step": per_step,
        "rates": {name: spread(values)._asdict() for name, values in rates.items()},
        "repeats": seconds,
        **relate(rates, list(flops), per_step),
    }


def relate(
    rates: dict[str, list[float]], products: list[str], per_step: dict[str, float]
) -> dict[str, Any]:
    """The floors that rates and FLOPs make, and the shares of them that the trainer reaches."""

    def best(names: list[str]) -> str:
        return max(names, key=lambda name: spread(rates[name]).median)

    starts = ("env steps", "env and policy")
    fastest = {
        start: best([name for name in rates if name.startswith(start)]) for start in starts
    } | {"matrix product": best(products)}
    alone, both, product = (rates[name] for name in fastest.values())
    learning = sum(per_step.values()) - per_step["rollout"]
    arithmetic = [rate / sum(per_step.values()) for rate in product]
    joint = [1 / (1 / steps + learning / rate) for steps, rate in zip(both, product, strict=True)]
    named = {"env steps alone": alone, "env and policy": both}
    shares = {f"rollout / {name}": ratio(rates["rollout"], floor) for name, floor in named.items()}
    named |= {"arithmetic floor": arithmetic, "joint floor": joint}
    shares |= {f"trained / {name}": ratio(rates["trained"], floor) for name, floor in named.items()}
    return {
        "best": fastest,
        "floors": {name: spread(values)._asdict() for name, values in named.items()},
        "shares": {name: share._asdict() for name, share in shares.items()},
    }


def show(result: dict[str, Any]) -> str:
    """The figures as three tables."""

    def scaled(name: str, values: dict[str, float]) -> list[str]:
        is_product = name[0].isdigit()
        scale, unit = (1e9, "GFLOP/s") if is_product else (1e6, "M steps/s")
        digits = 0 if is_product else 3
        return [name, *(f"{each / scale:.{digits}f}" for each in values.values()), unit]

    rates = [scaled(*item) for item in result["rates"].items()]
    rates += [scaled(*item) for item in list(result["floors"].items())[2:]]
    total = sum(result["flops_per_step"].values())
    flops = [[name, f"{each:,.0f}"] for name, each in result["flops_per_step"].items()]
    shares = [
        [name, *(f"{100 * each:.1f} %" for each in share.values())]
        for name, share in result["shares"].items()
    ]
    title = (
        f"{result['algo']}, {result['num_envs']} envs x {result['rollout_length']}, "
        f"{result['seeds']} seeds, epochs {result['epochs']}, "
        f"baseline epochs {result['baseline_epochs']}"
    )
    return "\n\n".join(
        [
            title,
            show_table(["", "median", "low", "high", ""], rates),
            show_table(["FLOPs per env step", ""], [*flops, ["all", f"{total:,.0f}"]]),
            show_table(["share of a floor", "of medians", "low", "high"], shares),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algo", choices=["vpg", "ppo", "a2c", "reinforce"], default="vpg")
    parser.add_argument("--seeds", type=count, default=16)
    parser.add_argument("--envs", type=count, default=64)
    parser.add_argument("--rollout-length", type=count, default=128)
    parser.add_argument("--updates", type=count, default=8, help="rollouts in one repeat")
    parser.add_argument("--epochs", type=count, default=4, help="of PPO")
    parser.add_argument("--baseline-epochs", type=count, default=1, help="of VPG and A2C")
    parser.add_argument("--repeats", type=count, default=7)
    parser.add_argument("--output", type=Path, help="by default results/floor_DEVICE.json")
    options = parser.parse_args()
    use_all_cores()
    result = floors(options)
    print(show(result))
    output = options.output or RESULTS / f"floor_{jax.default_backend()}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"surroundings": surroundings(), **result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
