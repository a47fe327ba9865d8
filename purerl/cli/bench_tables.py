"""What `purerl bench` prints: a line a point, and the table of all."""

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from purerl.cli.tables import TITLE
from purerl.experiment.report.format import format_bytes, format_number
from purerl.measuring.benches import Bench
from purerl.measuring.points import Point
from purerl.measuring.spreads import ratio, spread


def point_line(point: Point) -> str:
    """A point as soon as it is there."""
    if point.failed is not None:
        return f"{_name(point)}: {point.failed}"
    seconds = spread(point.run_seconds or ()).show(digits=3)
    return (
        f"{_name(point)}, {point.updates} updates: trace {point.lower_seconds:.1f} s, compile "
        f"{point.compile_seconds:.1f} s, first run {point.first_seconds:.3f} s, then {seconds} s"
    )


def bench_table(result: Bench) -> Table:
    """A row for each point: speed with its spread, shares of limits, memory, seconds."""
    solved = [shown_solved(point) for point in result.points]
    columns = ["envs × seeds", "steps/s, median [range]"]
    columns += ["floor", "products"] * (result.limit is not None)
    columns += ["planned", "in use", "compile"] + ["solved"] * any(solved)
    table = Table(*columns, title=_title(result), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), **TITLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for point, seconds in zip(result.points, solved, strict=True):
        cells = [point.failed] if point.failed is not None else _cells(point, result)
        table.add_row(_name(point), *cells, *([seconds] * bool(seconds)))
    return table


def bench_notes(result: Bench) -> str:
    """What the columns of the table are."""
    shares = []
    if result.limit is not None:
        limit = format_number(result.limit.flops_per_second, "FLOP/s")
        shares = [
            "floor: share of the speed of environments and the policy alone, which learn nothing",
            f"products: those of an env step, as a share of {limit}: {result.limit.source}",
        ]
    memory = "planned: memory of a device, as the compiler plans it"
    in_use = [point.in_use() for point in result.points if point.failed is None]
    if in_use:
        memory += f"; in use: {in_use[0].by}"
    if any(each.is_bound for each in in_use):
        memory += "; ≤: compiling had as much in use"
    solved = []
    if any(map(shown_solved, result.points)):
        target = next(point.target_return for point in result.points if point.target_return)
        solved = [f"solved: after so long, half of the seeds had an update at {target:g} or more"]
    return "\n".join([*shares, memory, *solved])


def _title(result: Bench) -> str:
    machine = result.machine
    device = machine["processor"] if machine["platform"] == "cpu" else machine["device"]
    return f"{result.env} · {machine['devices']} × {device} · jax {machine['jax']}"


def _name(point: Point) -> str:
    envs = "preset" if point.num_envs is None else str(point.num_envs)
    return f"{point.algo} {envs} × {point.seeds}"


def _cells(point: Point, result: Bench) -> list[str]:
    """The cells of a point that was measured."""
    rates = point.steps_per_second or []
    median, low, high = map(format_number, spread(rates))
    shares = ["", ""] * (result.limit is not None)
    if result.limit is not None and point.flops_per_step:
        limit = result.limit.flops_per_second * _share_of_machine(point, result.machine)
        shares[1] = f"{100 * spread(rates).median * point.flops_per_step / limit:.3g}%"
    if result.limit is not None and point.floor_steps_per_second:
        shares[0] = f"{ratio(rates, point.floor_steps_per_second).median:.0%}"
    return [
        *(f"{median} [{low}, {high}]", *shares),
        *(format_bytes(point.device_bytes or 0), point.in_use().show()),
        f"{(point.lower_seconds or 0) + (point.compile_seconds or 0):.1f} s",
    ]


def _share_of_machine(point: Point, machine: dict[str, Any]) -> float:
    """The share of the devices that a point has used; on a CPU one of them may use all cores."""
    if machine["platform"] == "cpu" or point.devices is None:
        return 1.0
    return point.devices / machine["devices"]


def shown_solved(point: Point) -> str:
    """`0.25 s`, the median time until a point was solved; where some repeats were not, how many.

    Those come after all others, so that the median may be none; empty where no repeat was solved.
    """
    seconds = [math.inf if each is None else each for each in point.solved_seconds or ()]
    reached = sum(map(math.isfinite, seconds))
    if not reached:
        return ""
    median = spread(seconds).median
    shown = [f"{median:.2f} s"] if math.isfinite(median) else []
    return " ".join(shown + [f"in {reached} of {len(seconds)}"] * (reached < len(seconds)))
