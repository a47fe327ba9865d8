"""How many env steps a second are trained, in how much memory, over algorithms, seeds and envs?

Each point is one of `purerl bench`, on CartPole-v1 with the presets and without the floors. Two
runs of different length then say what an update more costs in memory.

    python benchmarks/throughput.py                                  # about five minutes
    python benchmarks/throughput.py --algos ppo --seeds 1 64 --envs 4 64 --repeats 7
    python benchmarks/throughput.py --lengths 8 128                  # does memory grow with a run?
"""

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arguments import count
from surroundings import revision
from text_tables import show_table

from purerl.cli.bench_tables import bench_table, point_line
from purerl.cli.tables import print_rich
from purerl.config.presets import FACTORIES
from purerl.experiment.store.files import write_json
from purerl.experiment.store.own_files import require_writable
from purerl.measuring.benches import bench, check, measure
from purerl.measuring.figures import MEGABYTE, save_bench
from purerl.measuring.points import Point, PointRequest

RESULTS = Path(__file__).parent / "results"
LENGTHS_SEEDS = 16


def growth(points: Sequence[Point]) -> list[list[str]]:
    """What an update more costs one seed in memory, on all devices and in the process's peak."""
    rows = []
    known = sorted((vars(point) for point in points), key=lambda point: point["updates"])
    for short, long in itertools.pairwise(known):
        more = (long["updates"] - short["updates"]) * long["seeds"]
        per_update = (long["device_bytes"] - short["device_bytes"]) * long["devices"] / more
        resident = long["peak_process_bytes"] - short["peak_process_bytes"]
        lengths = f"{short['updates']} -> {long['updates']} updates"
        cells = (f"{per_update:.1f} B", f"{resident / more / 1e3:.1f} kB")
        rows.append([lengths, *cells, f"{resident / MEGABYTE:+.1f} MB"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algos", nargs="+", choices=list(FACTORIES), default=["vpg", "ppo"])
    parser.add_argument("--seeds", nargs="+", type=count, default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--envs", nargs="+", type=count, default=[16])
    parser.add_argument("--updates", type=count, help="by default as `purerl bench` has it")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=count,
        default=[8, 128],
        help=f"updates of the runs whose memory is compared; {LENGTHS_SEEDS} seeds",
    )
    parser.add_argument("--output", type=Path, help="JSON, by default results/throughput_DEVICE")
    options = parser.parse_args()
    if len({*options.lengths}) < len(options.lengths):
        parser.error(f"--lengths {options.lengths} repeat; give each once")
    around = check([PointRequest("CartPole-v1", "vpg", 1, floor=False)])["machine"]
    around |= {"revision": revision(Path(__file__).parent)}
    output = options.output or RESULTS / f"throughput_{around['platform']}.json"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        require_writable("--output", output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    found: dict[str, Any] = {"surroundings": around, "points": [], "lengths": []}

    def show(point: Point, name: str) -> None:
        print_rich(point_line(point))
        found[name].append(dataclasses.asdict(point))
        write_json(output, found)

    result = bench(
        "CartPole-v1",
        options.algos,
        seeds=options.seeds,
        num_envs=options.envs,
        updates=options.updates,
        repeats=options.repeats,
        floor=False,
        progress=lambda point: show(point, "points"),
    )
    print_rich(bench_table(result))
    print("the same run, shorter and longer", flush=True)
    lengths = []
    for updates in options.lengths:
        request = PointRequest(
            *("CartPole-v1", options.algos[0], LENGTHS_SEEDS, options.envs[0]),
            updates=updates,
            repeats=1,
            floor=False,
        )
        lengths.append(measure(request))
        show(lengths[-1], "lengths")
    header = ("an update more of a seed", "devices", "peak RSS", "peak RSS in all")
    print(show_table(header, growth([point for point in lengths if point.failed is None])))
    save_bench(result.points, output.with_suffix(".png"))
    print(f"{output} and {output.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
