"""Trainers that take turns: purerl beside rejax, and beside itself with one thing set otherwise."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from peers import Worker, compare
from visiting.stage import Context, Part, Skipped
from visiting.wheels import rejax_path

from purerl.measuring.spreads import ratio, spread

FOLDER = Path(__file__).resolve().parents[1]
DETERMINISTIC = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"


class Variant(NamedTuple):
    """Something that is set otherwise than by default."""

    name: str
    flags: str = ""
    """Of XLA."""
    variables: dict[str, str] = {}  # noqa: RUF012
    patches: dict[str, int] = {}  # noqa: RUF012
    """Numbers of purerl's modules, as MODULE:NAME."""


# The largest predicted gain first: a GPU's update is thousands of small launches.
VARIANTS = (
    Variant("no command buffers", "--xla_gpu_enable_command_buffer="),
    Variant("loops in command buffers", "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"),
    Variant("small command buffers", "--xla_gpu_graph_min_graph_size=2"),
    Variant("unroll 64", patches={"purerl.compute.hoisting:UNROLL": 64}),
    Variant("unroll 4", patches={"purerl.compute.hoisting:UNROLL": 4}),
    Variant("unroll 1", patches={"purerl.compute.hoisting:UNROLL": 1}),
    Variant("no blocks of rows", patches={"purerl.compute.rows:MAX_WHOLE_ROWS": 2**30}),
    Variant("blocks of 4096 rows", patches={"purerl.compute.rows:MAX_BLOCK_ROWS": 4096}),
    Variant("no autotuning", "--xla_gpu_autotune_level=0"),
    Variant("autotuning 2", "--xla_gpu_autotune_level=2"),
    Variant("no Triton products", "--xla_gpu_enable_triton_gemm=false"),
    Variant("latency-hiding scheduler", "--xla_gpu_enable_latency_hiding_scheduler=true"),
    Variant("bfloat16 products", variables={"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"}),
)
REHEARSED = ("unroll 4", "no autotuning", "bfloat16 products")


def variables(variant: Variant, share: float) -> dict[str, str]:
    """The environment of a trainer that has a share of the device's memory."""
    flags = " ".join(filter(None, (os.environ.get("XLA_FLAGS", ""), variant.flags)))
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": str(share)}
    return os.environ | memory | {"XLA_FLAGS": flags} | variant.variables


def trainer(work: dict[str, Any], variant: Variant, *, share: float = 0.4) -> Worker:
    """purerl in a process of its own, with a preset."""
    script = FOLDER / "visiting" / "trainer.py"
    work = work | {"patches": variant.patches}
    command = [sys.executable, str(script), json.dumps(work)]
    return Worker(variant.name, work, command, variables(variant, share))


def in_turn(workers: Sequence[Worker], repeats: int) -> dict[str, Any]:
    """Let trainers take turns; steps a second of each, and how often the first's the others are.

    **Raises:** `RuntimeError` where one has died.
    """
    compare(list(workers), repeats)
    for worker in workers:
        if worker.failed is not None:
            raise RuntimeError(worker.failed)
    first, *others = workers
    return {
        "steps_per_second": {worker.label: worker.rates() for worker in workers},
        "ratio": {
            worker.label: ratio(worker.rates(), first.rates())._asdict() for worker in others
        },
        "line": f"{first.label} {spread(first.rates()).median / 1e6:.3g} M steps/s; "
        + ", ".join(
            f"{worker.label} {ratio(worker.rates(), first.rates()).show(digits=2)} times it"
            for worker in others
        ),
    }


def close(workers: Sequence[Worker]) -> None:
    for worker in workers:
        if worker.failed is None:
            worker.close()


def sized(context: Context, algo: str) -> dict[str, Any]:
    """The work of one training in a comparison."""
    sizes = context.pick((64, 128, 8, 256), (4, 8, 2, 2))
    names = ("num_envs", "rollout_length", "updates", "seeds")
    return {"env": "CartPole-v1", "algo": algo} | dict(zip(names, sizes, strict=True))


def compare_variant(context: Context, variant: Variant, algo: str) -> dict[str, Any]:
    """The default and a variant, in turn."""
    workers = [trainer(sized(context, algo), each) for each in (Variant("default"), variant)]
    try:
        return in_turn(workers, context.pick(5, 1))
    finally:
        close(workers)


def parsed(context: Context, variant: Variant) -> dict[str, Any]:
    """Whether XLA takes a variant's flags, and purerl has what it patches: no GPU is needed."""
    patch = "; ".join(
        f"import {module}; {module}.{name}"
        for module, name in (each.split(":") for each in variant.patches)
    )
    code = f"import jax; jax.jit(lambda x: x + 1)(1.0); {patch}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables(variant, 0.4) | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return {"line": f"parsed: {variant.flags or variant.variables or variant.patches}"}


def variant_parts(context: Context) -> list[Part]:
    """The default beside each variant; in a rehearsal three of them, the others are parsed."""

    def compared(variant: Variant, algo: str) -> Part:
        def work(context: Context) -> dict[str, Any]:
            return compare_variant(context, variant, algo)

        return Part(f"{variant.name}, {algo}", 45.0, work)

    def only_parsed(variant: Variant) -> Part:
        return Part(f"{variant.name}, parsed", 5.0, lambda context: parsed(context, variant))

    if context.rehearse:
        return [
            compared(each, "reinforce") if each.name in REHEARSED else only_parsed(each)
            for each in VARIANTS
        ]
    return [compared(variant, algo) for algo in ("vpg", "ppo") for variant in VARIANTS]


def rejax_part(seeds: int) -> Part:
    """PPO by purerl and rejax, the work of `peers.py`, in turn."""

    def work(context: Context) -> dict[str, Any]:
        path = rejax_path(context.site)
        if not path:
            raise Skipped("rejax is not here; fetch it with --wheels, and name it with --site")
        envs, length, updates = context.pick((64, 128, 8), (4, 8, 2))
        count = context.pick(seeds, 2)
        work = {"num_envs": envs, "rollout_length": length, "updates": updates, "seeds": count}
        script = str(FOLDER / "contenders.py")
        workers = []
        for name in ("rejax", "purerl"):
            environment = variables(Variant(name), 0.4)
            if name == "rejax":  # its gymnax before purerl's
                paths = [*path, environment.get("PYTHONPATH", "")]
                environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            command = [sys.executable, script, name, json.dumps(work)]
            workers.append(Worker(name, work, command, environment))
        try:
            return in_turn(workers, context.pick(5, 1))
        finally:
            close(workers)

    return Part(f"{seeds} seeds", 60.0, work)
