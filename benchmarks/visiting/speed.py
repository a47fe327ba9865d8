"""How fast a device trains, in how much memory, and where the time goes."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import phases
from jax.errors import JaxRuntimeError
from jax.profiler import ProfileData
from visiting.stage import Context, Part

import purerl
from purerl.cli.bench_tables import shown_solved
from purerl.compute.mapping import block_size, map_seeds
from purerl.measuring.benches import measure
from purerl.measuring.floors import Updates
from purerl.measuring.point_process import why_out_of_memory
from purerl.measuring.points import Point, PointRequest
from purerl.measuring.spreads import ratio, spread

RESULTS = Path(__file__).resolve().parents[1] / "results"
TOP = 10  # kernels


def throughput(algo: str, seeds: int, **more: Any) -> Part:
    """A point of `purerl bench`: 64 environments × 128 steps."""

    def work(context: Context) -> dict[str, Any]:
        usual = {"num_envs": 64, "settings": {"rollout_length": 128}} | more
        tiny = {"num_envs": 4, "updates": 2, "settings": {"rollout_length": 8, "hidden": (8,)}}
        sizes = context.pick(usual, tiny)
        count = context.pick(seeds, min(seeds, 2))
        request = PointRequest("CartPole-v1", algo, count, repeats=context.pick(5, 2), **sizes)
        point = measure(request, context.scratch / "measured.txt")
        return told(stand_in(point) if context.rehearse else point)

    return Part(f"{algo}, {seeds} seeds", 45.0, work)


def stand_in(point: Point) -> Point:
    """A point with what a CPU does not report, so that a rehearsal shows it too."""
    return dataclasses.replace(point, peak_device_bytes=point.device_bytes)


def told(point: Point) -> dict[str, Any]:
    """A point and its line: speed, share of the floor, memory planned and real."""
    found = {"point": dataclasses.asdict(point)}
    if point.failed is not None:
        return found | {"failed": point.failed}
    rates = point.steps_per_second or []
    line = f"{spread(rates).show(1e6, 2)} M steps/s"
    if point.floor_steps_per_second:
        line += f", {ratio(rates, point.floor_steps_per_second).median:.0%} of the floor"
    in_use = point.in_use()
    line += f", {in_use.show()} in use {in_use.by}"
    if point.device_bytes and point.peak_device_bytes:
        line += f", {in_use.count / point.device_bytes:.2f} of the plan"
    if solved := shown_solved(point):
        line += f", solved: {solved}"
    line += f", compiled in {(point.lower_seconds or 0) + (point.compile_seconds or 0):.1f} s"
    return found | {"line": line}


def learner(rollout_length: int, minibatches: int) -> Part:
    """One PPO learner of 4096 environments, for so long that it solves CartPole."""
    settings = {"rollout_length": rollout_length, "num_minibatches": minibatches}
    updates = 2**22 * 5 // (4096 * rollout_length)
    part = throughput("ppo", 1, num_envs=4096, updates=updates, settings=settings)
    return dataclasses.replace(part, name=f"one ppo learner, 4096 envs × {rollout_length}")


def exhausted(context: Context) -> dict[str, Any]:
    """A point that does not fit, as a rehearsal has it: its row says so."""
    request = PointRequest("CartPole-v1", "reinforce", 2, 4, 2, 1, False, memory_limit=1000)
    point = measure(request)
    assert point.failed is not None
    message = why_out_of_memory(JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: stood in"))
    return {"point": dataclasses.asdict(point), "line": f"{point.failed}; on a GPU {message}"}


def throughput_parts(context: Context) -> Sequence[Part]:
    """The sizes that tell most, and one learner."""
    if context.rehearse:
        out_of_memory = Part("out of memory", 0.0, exhausted)
        return [throughput("vpg", 256), learner(32, 8), out_of_memory]
    points = [throughput(algo, seeds) for seeds in (256, 1, 8192) for algo in ("vpg", "ppo")]
    return [*points, learner(128, 16), learner(32, 8)]


def between_parts(context: Context) -> Sequence[Part]:
    """The sizes between."""
    counts = context.pick((16, 128, 1024, 2048), (16,))
    algos = context.pick(("vpg", "ppo"), ("vpg",))
    return [throughput(algo, seeds) for algo in algos for seeds in counts]


def phases_part(algo: str) -> Part:
    """The phases of an update, as `phases.py` takes them apart."""

    def work(context: Context) -> dict[str, Any]:
        config = sized(context, algo)
        made = phases.programs(
            purerl.seed_keys(0, context.pick(256, 2)), config, context.pick(8, 2)
        )
        seconds = phases.measure(made, context.pick(10, 2), context.pick(8, 2))
        middle = {name: spread(each).median for name, each in seconds.items()}
        line = ", ".join(f"{name} {1e3 * each:.2f} ms" for name, each in middle.items())
        return {"seconds": seconds, "line": line}

    return Part(f"phases of {algo}", 60.0, work)


def sized(context: Context, algo: str) -> Any:
    """64 environments × 128 steps, or in a rehearsal few."""
    tiny = {"num_envs": 4, "rollout_length": 8, "hidden": (8,)}
    sizes = context.pick({"num_envs": 64, "rollout_length": 128}, tiny)
    return purerl.preset("CartPole-v1", algo, **sizes)


def kernels_part(algo: str) -> Part:
    """The kernels that take most of an update's time, and how many there are."""

    def work(context: Context) -> dict[str, Any]:
        config, folder = sized(context, algo), context.scratch / f"trace-{algo}"
        keys = purerl.seed_keys(0, context.pick(256, 2))
        states = map_seeds(purerl.init, keys, config)

        def update():
            how: Any = {"block": block_size(config.num_envs), "with_layout": True}
            return jax.block_until_ready(map_seeds(Updates(1), states, config, **how))

        update()
        with jax.profiler.trace(str(folder)):
            update()
        (path, *_) = sorted(folder.rglob("*.xplane.pb"), key=lambda path: -path.stat().st_mtime)
        planes = list(ProfileData.from_file(str(path)).planes)
        found = kernels(context.pick(planes, [*planes, StandInPlane()]))
        launches = found["launches"] / config.rollout_length
        found["planned_launches"] = planned_launches(algo)
        top = ", ".join(f"{name} {share:.0%}" for name, share in found["top"][:3])
        line = f"{found['launches']} kernels an update, {launches:.1f} for each of its env steps "
        planned = f"(compiled.py: {found['planned_launches']:.1f})"
        return found | {"line": f"{line}{planned}; most time: {top}"}

    return Part(f"kernels of {algo}", 40.0, work)


def planned_launches(algo: str) -> float:
    """Launches of an update over its env steps, by `compiled.py` for an H200; the newest jax's."""
    kept = json.loads((RESULTS / "compiled.json").read_text())["h200"][algo]
    newest = kept[max(kept)]
    return newest["launches_per_update"] / 128


def kernels(planes: Iterable[Any]) -> dict[str, Any]:
    """What ran on the devices of a profile: how many kernels, and the share of each name's time.

    **Raises:** `ValueError` where nothing did.
    """
    count, taken = 0, Counter()
    for plane in planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if line.name.startswith("Stream"):
                for event in line.events:
                    count += 1
                    taken[event.name] += event.duration_ns
    if count == 0:
        raise ValueError("the profile has no kernels of a GPU")
    total = sum(taken.values())
    top = [[name, each / total] for name, each in taken.most_common(TOP)]
    return {"launches": count, "kernel_seconds": total / 1e9, "top": top}


class StandInEvent:
    """A kernel of a GPU's profile."""

    def __init__(self, name: str, duration_ns: float):
        self.name, self.duration_ns = name, duration_ns


class StandInLine:
    """What ran on a stream of a GPU."""

    name = "Stream #13(Compute)"
    events = (StandInEvent("fusion", 3000.0), StandInEvent("gemm", 1000.0))


class StandInPlane:
    """A GPU's part of a profile, which on a CPU there is none of."""

    name = "/device:GPU:0"
    lines = (StandInLine(),)
