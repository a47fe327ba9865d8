"""What `purerl bench` prints: a line a point, and the table of all."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from purerl.cli.tables import TITLE
from purerl.experiment.report.format import format_bytes, format_number
from purerl.measuring.benches import Bench
from purerl.measuring.limits import Limit
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
    solved = [_solved(point) for point in result.points]
    columns = ["envs × seeds", "steps/s, median [range]"]
    columns += ["floor", "products"] * (result.limit is not None)
    columns += ["planned", "in use", "compile"] + ["solved"] * any(solved)
    table = Table(*columns, title=_title(result), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), **TITLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for point, seconds in zip(result.points, solved, strict=True):
        cells = [point.failed] if point.failed is not None else _cells(point, result.limit)
        table.add_row(_name(point), *cells, *([seconds] if seconds else []))
    return table


def bench_notes(result: Bench) -> str:
    """What the columns of the table are."""
    shares = []
    if result.limit is not None:
        limit = format_number(result.limit.flops, "FLOP/s")
        shares = [
            "floor: share of the speed of environments and the policy alone, which learn nothing",
            f"products: those of an env step, as a share of {limit}: {result.limit.source}",
        ]
    is_cpu = result.machine["platform"] == "cpu"
    used = "by the process" if is_cpu else "as the device reports it"
    solved = []
    if any(map(_solved, result.points)):
        target = next(point.target_return for point in result.points if point.target_return)
        solved = [f"solved: after so long, half of the seeds had an update at {target:g} or more"]
    return "\n".join(
        [*shares, f"planned: memory of a device, as the compiler plans it; in use: {used}", *solved]
    )


def _title(result: Bench) -> str:
    machine = result.machine
    device = machine["processor"] if machine["platform"] == "cpu" else machine["device"]
    return f"{result.env} · {machine['devices']} × {device} · jax {machine['jax']}"


def _name(point: Point) -> str:
    envs = "preset" if point.num_envs is None else str(point.num_envs)
    return f"{point.algo} {envs} × {point.seeds}"


def _cells(point: Point, limit: Limit | None) -> list[str]:
    """The cells of a point that was measured."""
    rates = point.steps_per_second or []
    median, low, high = map(format_number, spread(rates))
    shares = []
    if limit is not None and point.floor_steps_per_second and point.flops_per_step:
        products = spread(rates).median * point.flops_per_step / limit.flops
        floor = ratio(rates, point.floor_steps_per_second).median
        shares = [f"{floor:.0%}", f"{100 * products:.3g}%"]
    elif limit is not None:
        shares = ["", ""]
    tells = point.peak_device_bytes is not None
    in_use = point.peak_device_bytes if tells else point.peak_process_bytes
    return [
        *(f"{median} [{low}, {high}]", *shares),
        *(format_bytes(point.device_bytes or 0), format_bytes(in_use or 0)),
        f"{(point.lower_seconds or 0) + (point.compile_seconds or 0):.1f} s",
    ]


def _solved(point: Point) -> str:
    """The median seconds until a point was solved; empty where most repeats were not."""
    seconds: Sequence[float | None] = point.solved_seconds or ()
    reached = [each for each in seconds if each is not None]
    return f"{spread(reached).median:.2f} s" if 2 * len(reached) > len(seconds) else ""
