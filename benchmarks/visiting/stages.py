"""The stages of the visit, in order of value."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import distributions
from typing import Any

from visiting.stage import Context, Part, Stage


def device(context: Context) -> dict[str, Any]:
    """Name, memory, driver, versions and flags."""
    import jax

    from purerl.measuring.machine import describe_machine

    found = jax.devices()[0]
    stats = found.memory_stats() or context.pick({}, {"bytes_limit": 10**9})  # stood in for
    driver = None
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv"]
        driver = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()[1:]
    names = ("jax", "jaxlib", "nvidia-", "equinox", "optax", "gymnax")
    installed = {dist.metadata["Name"]: dist.version for dist in distributions()}
    return {
        "device": found.device_kind,
        "machine": describe_machine(),
        "memory_stats": {name: int(value) for name, value in stats.items()},
        "driver": driver,
        "versions": {n: v for n, v in sorted(installed.items()) if n.lower().startswith(names)},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "line": f"{len(jax.devices())} × {found.device_kind}, "
        f"{stats.get('bytes_limit', 0) / 1e9:.1f} GB, jax {jax.__version__}, driver {driver}",
    }


def proofs(context: Context) -> Sequence[Part]:
    # This process takes memory as it needs it: others that it starts need some too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from visiting import proofs, turns, whole

    return [
        Part("resumed with the flags", 60.0, proofs.resumed(turns.DETERMINISTIC)),
        Part("with products in float32 proper", 45.0, whole.highest),
        *proofs.in_process(),
        Part("what the flags cost", 45.0, proofs.flags_cost),
        # A rehearsal has done this with the flags.
        *context.pick([Part("resumed without flags", 60.0, proofs.resumed(""))], []),
    ]


def typed(context: Context) -> Sequence[Part]:
    from visiting import whole

    return [Part("64 seeds", 20.0, whole.as_typed)]


def throughput(context: Context) -> Sequence[Part]:
    from visiting import speed

    return speed.throughput_parts(context)


def rejax(context: Context) -> Sequence[Part]:
    from visiting import turns

    return [turns.rejax_part(seeds) for seeds in (256, 16, 1024)]


def where(context: Context) -> Sequence[Part]:
    from visiting import speed

    algos = context.pick(("vpg", "ppo"), ("vpg",))
    return [*map(speed.phases_part, algos), *map(speed.kernels_part, algos)]


def variants(context: Context) -> Sequence[Part]:
    from visiting import turns

    return turns.variant_parts(context)


def presets(context: Context) -> Sequence[Part]:
    from visiting import whole

    return [
        Part("Pendulum-v1", 40.0, whole.of_preset("Pendulum-v1", 64)),
        Part("Breakout-MinAtar", 60.0, whole.of_preset("Breakout-MinAtar", 16)),
    ]


def between(context: Context) -> Sequence[Part]:
    from visiting import speed

    return speed.between_parts(context)


STAGES = [
    Stage(1, "device", 60.0, lambda context: [Part("device", 0.0, device)]),
    Stage(2, "purerl train", 90.0, typed),
    Stage(3, "proofs", 180.0, proofs),
    Stage(4, "throughput", 240.0, throughput),
    Stage(5, "rejax", 180.0, rejax),
    Stage(6, "where the time goes", 150.0, where),
    Stage(7, "one thing set otherwise", 600.0, variants),
    Stage(8, "presets", 150.0, presets),
    Stage(9, "sizes between", 300.0, between),
]
