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
**FLOPs per env step**: of the matrix products and their biases, counted from the networks' sizes;
activations, losses and optimisers are left out (see `flops_per_step`).
**arithmetic floor**: the matrix rate over the FLOPs per env step.
**joint floor**: env and policy at their floor, then the FLOPs of learning at the matrix rate.

    python benchmarks/floor.py
    python benchmarks/floor.py --algo ppo --seeds 16 --envs 4 --repeats 5
"""

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from measures import ratio, show_table, spread
from surroundings import surroundings

import purerl
from purerl.compute.mapping import block_size, map_seeds
from purerl.compute.mesh import seed_mesh
from purerl.experiment.hosts.startup import use_all_cores
from purerl.rollout import collect

RESULTS = Path(__file__).parent / "results"
HIDDEN = (64, 64)
SHAPES = ((2048, 2048, 2048), (65536, 64, 64), (8192, 64, 64), (64, 64, 64))


def forward_flops(sizes: Sequence[int]) -> int:
    """FLOPs of one input through dense layers of the given widths: `Σ 2 · in · out + out`."""
    pairs = itertools.pairwise(sizes)
    return sum(2 * before * after + after for before, after in pairs)


def gradient_flops(sizes: Sequence[int]) -> int:
    """FLOPs of one input's share in a gradient of the parameters: forward and backward.

    Backward each layer has two products as large as its forward one, by its input and by its
    weights, but the first has none by its input.
    """
    pairs = list(itertools.pairwise(sizes))
    by_weights = sum(2 * before * after + after for before, after in pairs)
    by_input = sum(2 * before * after for before, after in pairs[1:])
    return forward_flops(sizes) + by_weights + by_input


def flops_per_step(
    algo: str, policy: Sequence[int], baseline: Sequence[int], epochs: int, baseline_epochs: int
) -> dict[str, int]:
    """FLOPs of the networks per env step, by phase.

    `rollout`: the policy forward. `values`: the baseline forward, once: a successor is the next
    observation, but where an episode was cut. `policy update`: forward and backward in each of
    `epochs` passes. `baseline update`: the same in each of `baseline_epochs`. REINFORCE has no
    baseline.
    """
    has_baseline = algo != "reinforce"
    return {
        "rollout": forward_flops(policy),
        "values": forward_flops(baseline) * has_baseline,
        "policy update": epochs * gradient_flops(policy),
        "baseline update": baseline_epochs * gradient_flops(baseline) * has_baseline,
    }


@dataclasses.dataclass(frozen=True)
class EnvSteps:
    """Rollouts of random or of plainly drawn actions, of one agent; returns what it must."""

    rollouts: int
    with_policy: bool

    def __call__(self, key: Any, config: Any) -> Any:
        env, params = config.env, config.env_params
        num_envs, length = config.num_envs, config.rollout_length
        num_actions = config.env_spec.action_space.n
        reset_key, net_key, run_key = jax.random.split(key, 3)
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_envs), params)
        sizes = (obs.shape[-1], *HIDDEN, num_actions)
        weights = [
            jax.random.normal(jax.random.fold_in(net_key, i), shape) / jnp.sqrt(shape[0])
            for i, shape in enumerate(itertools.pairwise(sizes))
        ]

        def act(obs, uniform):
            if not self.with_policy:
                return (uniform * num_actions).astype(jnp.int32)
            for weight in weights[:-1]:
                obs = jnp.tanh(obs @ weight)
            below = jnp.cumsum(jax.nn.softmax(obs @ weights[-1]), axis=-1)
            return jnp.sum(below[:, :-1] < uniform[:, None], axis=-1).astype(jnp.int32)

        def step(carry, drawn):
            keys, uniform = drawn
            obs, state, total = carry
            action = act(obs, uniform)
            obs, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
                keys, state, action, params
            )
            return (obs, state, total + reward), None

        def rollout(carry, key):
            env_key, action_key = jax.random.split(key)
            keys = jax.random.split(env_key, (length, num_envs))
            uniform = jax.random.uniform(action_key, (length, num_envs))
            return jax.lax.scan(step, carry, (keys, uniform))[0], None

        start = (obs, state, jnp.zeros(num_envs))
        return jax.lax.scan(rollout, start, jax.random.split(run_key, self.rollouts))[0]


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """purerl's own rollouts of one agent: the last is returned, so that each is made whole."""

    rollouts: int

    def __call__(self, state: Any, config: Any) -> Any:
        def once(carry, key):
            envs, _ = carry
            envs, rollout, _ = collect(key, state.learner.policy, envs, config)
            return (envs, rollout), None

        shapes = jax.eval_shape(
            lambda: collect(state.key, state.learner.policy, state.envs, config)[1]
        )
        none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        keys = jax.random.split(state.key, self.rollouts)
        return jax.lax.scan(once, (state.envs, none), keys)[0]


@dataclasses.dataclass(frozen=True)
class Updates:
    """Training steps of one agent."""

    updates: int

    def __call__(self, state: Any, config: Any) -> Any:
        return purerl.advance(state, config, self.updates)


def side_by_side(function: Callable[..., Any], mesh: Any) -> Callable[..., Any]:
    """Map a function over seeds with `vmap` on each device of a mesh."""

    def on_device(keys, config):
        return jax.vmap(function, (0, None))(keys, config)

    mapped = jax.shard_map(
        on_device, mesh=mesh, in_specs=(P("seeds"), P()), out_specs=P("seeds"), check_vma=False
    )
    return jax.jit(mapped)


def products(
    shape: tuple[int, int, int], mesh: Any, *, everywhere: bool
) -> tuple[Callable[[], Any], float]:
    """A chain of matrix products, and the FLOPs of them all.

    Where `everywhere`, on every device of the mesh at once; else on the first, which may spread a
    large product over the threads of a CPU.
    """
    rows, inner, columns = shape
    assert inner == columns, "a chain needs square weights"
    flops = 2 * rows * inner * columns
    times = max(1, int(2e10 / flops))
    devices = mesh.size if everywhere else 1

    def chain(x, weight):
        return jax.lax.fori_loop(0, times, lambda _, x: x @ weight, x)

    on_mesh = jax.shard_map(chain, mesh=mesh, in_specs=(P("seeds"), P()), out_specs=P("seeds"))
    program = jax.jit(on_mesh if everywhere else chain)
    x = jax.random.normal(jax.random.key(0), (devices * rows, inner))
    # Orthogonal, so that the numbers stay as large as they are.
    weight = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (inner, columns)))[0]
    return lambda: program(x, weight), float(flops * times * devices)


def measure(programs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """The seconds of each program: once to compile, then in turn, in an order that rotates."""
    names = list(programs)
    for name in names:
        jax.block_until_ready(programs[name]())
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            jax.block_until_ready(programs[name]())
            seconds[name].append(time.perf_counter() - start)
    return seconds


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

    def mapped(function: Callable[..., Any], batched: Any) -> Callable[[], Any]:
        return lambda: map_seeds(function, batched, config, block=block_size(config.num_envs))

    programs = {
        "env steps alone, as mapped": mapped(alone, keys),
        "env and policy, as mapped": mapped(both, keys),
        "rollout": mapped(Rollouts(options.updates), states),
        "trained": mapped(Updates(options.updates), states),
    }
    if options.seeds % mesh.size == 0:
        alone_beside, both_beside = side_by_side(alone, mesh), side_by_side(both, mesh)
        programs["env steps alone, side by side"] = lambda: alone_beside(keys, config)
        programs["env and policy, side by side"] = lambda: both_beside(keys, config)
    flops = {}
    for shape in SHAPES:
        name = "x".join(map(str, shape))
        programs[name], flops[name] = products(shape, mesh, everywhere=True)
    for shape in SHAPES[:2]:
        name = "x".join(map(str, shape)) + ", one device"
        programs[name], flops[name] = products(shape, mesh, everywhere=False)
    seconds = measure(programs, options.repeats)
    env_steps = config.env_steps * options.seeds
    rates = {
        name: [flops.get(name, env_steps) / each for each in taken]
        for name, taken in seconds.items()
    }
    spec: Any = config.env_spec
    obs, actions = spec.obs_space.shape[0], spec.action_space.n
    per_step = flops_per_step(
        options.algo,
        (obs, *HIDDEN, actions),
        (obs, *HIDDEN, 1),
        config.epochs,
        config.baseline_epochs,
    )
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
    rates: dict[str, list[float]], products: list[str], per_step: dict[str, int]
) -> dict[str, Any]:
    """The floors that rates and FLOPs make, and the shares of them that the trainer reaches."""

    def best(start: str) -> str:
        names = products if start == "" else [name for name in rates if name.startswith(start)]
        return max(names, key=lambda name: spread(rates[name]).median)

    alone, both, product = rates[best("env steps")], rates[best("env and policy")], rates[best("")]
    learning = sum(per_step.values()) - per_step["rollout"]
    arithmetic = [rate / sum(per_step.values()) for rate in product]
    joint = [1 / (1 / steps + learning / rate) for steps, rate in zip(both, product, strict=True)]
    named = {"env steps alone": alone, "env and policy": both}
    shares = {f"rollout / {name}": ratio(rates["rollout"], floor) for name, floor in named.items()}
    named |= {"arithmetic floor": arithmetic, "joint floor": joint}
    shares |= {f"trained / {name}": ratio(rates["trained"], floor) for name, floor in named.items()}
    return {
        "best": {"env steps": best("env steps"), "env and policy": best("env and policy")}
        | {"matrix product": best("")},
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
    flops = [[name, f"{count:,}"] for name, count in result["flops_per_step"].items()]
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
            show_table(["FLOPs per env step", ""], [*flops, ["all", f"{total:,}"]]),
            show_table(["share of a floor", "of medians", "low", "high"], shares),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algo", choices=["vpg", "ppo", "a2c", "reinforce"], default="vpg")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--rollout-length", type=int, default=128)
    parser.add_argument("--updates", type=int, default=8, help="rollouts in one repeat")
    parser.add_argument("--epochs", type=int, default=4, help="of PPO")
    parser.add_argument("--baseline-epochs", type=int, default=1, help="of VPG and A2C")
    parser.add_argument("--repeats", type=int, default=7)
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
