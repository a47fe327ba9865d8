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
import json
from collections.abc import Sequence
from pathlib import Path

from surroundings import revision
from text_tables import show_table

from purerl.cli.bench_tables import bench_table, point_line
from purerl.cli.tables import print_rich
from purerl.measuring.benches import bench
from purerl.measuring.figures import save_bench
from purerl.measuring.points import Point

RESULTS = Path(__file__).parent / "results"
LENGTHS_SEEDS = 16
MEGABYTE = 1e6


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
    parser.add_argument("--algos", nargs="+", default=["vpg", "ppo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--envs", nargs="+", type=int, default=[16])
    parser.add_argument("--updates", type=int, help="by default as `purerl bench` has it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[8, 128],
        help=f"updates of the runs whose memory is compared; {LENGTHS_SEEDS} seeds",
    )
    parser.add_argument("--output", type=Path, help="JSON, by default results/throughput_DEVICE")
    options = parser.parse_args()

    def show(point: Point) -> None:
        print_rich(point_line(point))

    result = bench(
        "CartPole-v1",
        options.algos,
        seeds=options.seeds,
        num_envs=options.envs,
        updates=options.updates,
        repeats=options.repeats,
        floor=False,
        progress=show,
    )
    print_rich(bench_table(result))
    print("the same run, shorter and longer", flush=True)
    lengths = [
        bench(
            "CartPole-v1",
            options.algos[0],
            seeds=LENGTHS_SEEDS,
            num_envs=options.envs[0],
            updates=updates,
            repeats=1,
            floor=False,
            progress=show,
        ).points[0]
        for updates in options.lengths
    ]
    header = ("an update more of a seed", "devices", "peak RSS", "peak RSS in all")
    print(show_table(header, growth([point for point in lengths if point.failed is None])))

    around = result.machine | {"revision": revision(Path(__file__).parent)}
    output = options.output or RESULTS / f"throughput_{around['platform']}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "surroundings": around,
        "points": [dataclasses.asdict(point) for point in result.points],
        "lengths": [dataclasses.asdict(point) for point in lengths],
    }
    output.write_text(json.dumps(found, indent=2) + "\n")
    save_bench(result.points, output.with_suffix(".png"))
    print(f"{output} and {output.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
