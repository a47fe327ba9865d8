"""What a machine's matrix units reach, and how much of it an env step of training asks for."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from purerl.compute.mesh import SEEDS, seed_mesh
from purerl.config.config import Config
from purerl.fit import mean_gradient
from purerl.measuring.spreads import spread, time_in_turn
from purerl.networks.network import parameters
from purerl.planning.flops import count_flops
from purerl.planning.targets import chip_of
from purerl.rollout import collect
from purerl.training import init
from purerl.update import baseline_objective, make_batch, policy_objective, rollout_values

SHAPES = ((2048, 2048, 2048), (65536, 64, 64), (8192, 64, 64), (64, 64, 64))
ACCELERATOR_SHAPE = (8192, 8192, 8192)
CPU_WORK, ACCELERATOR_WORK = 2e10, 2e13  # FLOP of a chain of products
MOST_PRODUCTS = 40_000  # in a chain: of small ones an accelerator launches no more in a second


@dataclasses.dataclass(frozen=True)
class Limit:
    """Of all local devices' matrix products."""

    flops_per_second: float
    source: str
    """Where it is from: a data sheet, or products that were timed here."""


def products_per_step(config: Config) -> dict[str, float]:
    """FLOPs of the networks' matrix products and convolutions per env step, by phase.

    `rollout`: the policy forward. `values`: the baseline forward, once: a successor is the next
    observation, but where an episode was cut. `policy update`: the gradient by its parameters in
    each of `epochs` passes. `baseline update`: the same in each of `baseline_epochs`.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(init, key, config)

    def batch_of(state):
        learner = state.learner
        _, rollout, _ = collect(state.key, learner.policy, state.envs, config)
        values = (None, None)
        if learner.baseline is not None:
            values = rollout_values(learner.baseline, rollout)
        return make_batch(rollout, values[0], config.estimate(rollout, *values, config.hyper))

    rows = config.rollout_length * config.num_envs
    batch = jax.eval_shape(batch_of, state)

    def forward(network):
        obs = jax.ShapeDtypeStruct(batch.obs.shape[1:], batch.obs.dtype)
        return count_flops(lambda net, obs: net(obs), network, obs, products_only=True)

    def gradient(network, objective):
        def by_parameters(network, batch, config):
            of_config = functools.partial(objective, config=config)
            return mean_gradient(parameters(network), network, batch, of_config)

        return count_flops(by_parameters, network, batch, config, products_only=True) / rows

    policy, baseline = state.learner.policy, state.learner.baseline
    found = {"rollout": forward(policy), "values": 0.0, "baseline update": 0.0}
    found["policy update"] = config.epochs * gradient(policy, policy_objective)
    if baseline is not None:
        found["values"] = forward(baseline)
        found["baseline update"] = config.baseline_epochs * gradient(baseline, baseline_objective)
    return found


def machine_limit(repeats: int = 3) -> Limit:
    """The data sheet's peak of all local devices, or the best rate of products timed here."""
    devices = jax.local_devices()
    chip = chip_of(devices[0].device_kind)
    precision = getattr(jax.config, "jax_default_matmul_precision", None)
    asked = "" if precision is None else f", with JAX_DEFAULT_MATMUL_PRECISION={precision}"
    if chip is not None:
        tera = chip.flops / 1e12
        source = f"the data sheet of {chip.name}, {tera:.0f} TFLOP/s at jax's default precision"
        source += f" × {len(devices)}" * (len(devices) > 1)
        return Limit(chip.flops * len(devices), source + asked)
    programs, flops = matrix_programs(seed_mesh())
    for run in programs.values():
        jax.block_until_ready(run())
    seconds = time_in_turn(programs, repeats)
    rates = {name: flops[name] / spread(taken).median for name, taken in seconds.items()}
    best = max(rates, key=rates.__getitem__)
    return Limit(rates[best], f"this machine's best product, {best}{asked}")


def matrix_programs(mesh: Mesh) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Chains of products of several shapes, by name, and the FLOPs of each chain.

    One product runs on every device at once, or one at a time on the first, which on a CPU may use
    all threads.
    """
    programs, flops = {}, {}
    lengths = chain_lengths(mesh.devices.flat[0].platform)
    for i, (shape, times) in enumerate(lengths.items()):
        name = "x".join(map(str, shape))
        programs[name], flops[name] = products(shape, times, mesh, everywhere=True)
        if i < 2:
            name += ", one device"
            programs[name], flops[name] = products(shape, times, mesh, everywhere=False)
    return programs, flops


def chain_lengths(platform: str) -> dict[tuple[int, int, int], int]:
    """How many products a chain has, by their shape; enough that launching it takes no share."""
    shapes, work = SHAPES, CPU_WORK
    if platform != "cpu":
        shapes, work = (ACCELERATOR_SHAPE, *SHAPES), ACCELERATOR_WORK
    times = {shape: int(work / (2 * math.prod(shape))) for shape in shapes}
    return {shape: min(max(1, each), MOST_PRODUCTS) for shape, each in times.items()}


def products(
    shape: tuple[int, int, int], times: int, mesh: Mesh, *, everywhere: bool
) -> tuple[Callable[[], Any], float]:
    """A chain of matrix products, and the FLOPs of them all.

    Where `everywhere`, on every device of the mesh at once; else on the first, which may spread a
    large product over the threads of a CPU.
    """
    rows, inner, columns = shape
    assert inner == columns, "a chain needs square weights"
    flops = 2 * math.prod(shape) * times
    devices = mesh.size if everywhere else 1

    def chain(x, weight):
        return jax.lax.fori_loop(0, times, lambda _, x: x @ weight, x)

    on_mesh = jax.shard_map(chain, mesh=mesh, in_specs=(P(SEEDS), P()), out_specs=P(SEEDS))
    program = jax.jit(on_mesh if everywhere else chain)
    x = jax.random.normal(jax.random.key(0), (devices * rows, inner))
    # Orthogonal, so that the numbers stay as large as they are.
    weight = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (inner, columns)))[0]
    return lambda: program(x, weight), float(flops * devices)
