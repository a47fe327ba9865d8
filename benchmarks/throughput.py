"""How many env steps a second are trained, in how much memory, over algorithms, seeds and envs?

Each point is a process of its own, so that its peak memory is its own and nothing is warm from the
point before. It compiles the program of `purerl.train_seeds` ahead of time, runs it once to warm
up, and then several times with other keys, waiting for everything that it returns.

    python benchmarks/throughput.py                                  # about five minutes
    python benchmarks/throughput.py --algos ppo --seeds 1 64 --envs 4 64 --repeats 7
    python benchmarks/throughput.py --lengths 8 128                  # does memory grow with a run?
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measures import show_table, spread
from surroundings import surroundings

RESULTS = Path(__file__).parent / "results"
STEPS = 600_000  # env steps over all seeds in one run, or more: it has two updates at least
LENGTHS_SEEDS = 16
MEGABYTE = 1e6


def measure(algo: str, seeds: int, num_envs: int, updates: int | None, repeats: int) -> Any:
    """One point of the sweep, in this process: CartPole-v1 with the algorithm's preset.

    - `lower_seconds`, `compile_seconds`: tracing, and compiling ahead of time;
    - `first_seconds`: the first run; `run_seconds`: those after it;
    - `device_bytes`: what the compiled program needs on each device: arguments, results and
      temporaries;
    - `peak_device_bytes`: the most in use on a device; None on a CPU, which does not tell;
    - `peak_rss_bytes`: the most that the process had resident, and `imported_rss_bytes` before it
      traced anything.
    """
    import jax

    import purerl
    from purerl.compute.mapping import block_size, pad_seeds, program_over_seeds
    from purerl.compute.mesh import seed_mesh
    from purerl.experiment.hosts.memory import program_bytes
    from purerl.experiment.hosts.startup import use_all_cores

    use_all_cores()
    base = purerl.preset("CartPole-v1", algo, num_envs=num_envs)
    if updates is None:
        updates = max(2, STEPS // (seeds * base.env_steps_per_update))
    total_steps = updates * base.env_steps_per_update
    config = purerl.preset("CartPole-v1", algo, num_envs=num_envs, total_steps=total_steps)
    mesh = seed_mesh(num_seeds=seeds)
    keys = [pad_seeds(purerl.seed_keys(root, seeds), mesh.size) for root in range(repeats + 1)]
    imported = peak_rss()

    start = time.perf_counter()
    # The program of `train_seeds` itself: within another it would be compiled with other options.
    program = program_over_seeds(purerl.train, mesh, block=block_size(config.num_envs))
    lowered = program.lower(keys[0], config)
    lowering = time.perf_counter() - start
    start = time.perf_counter()
    compiled = lowered.compile()
    compiling = time.perf_counter() - start
    seconds = []
    for each in jax.block_until_ready(keys):
        start = time.perf_counter()
        jax.block_until_ready(compiled(each, config))
        seconds.append(time.perf_counter() - start)
    stats = jax.local_devices()[0].memory_stats() or {}
    env_steps = config.env_steps * seeds
    return {
        "algo": algo,
        "seeds": seeds,
        "num_envs": num_envs,
        "rollout_length": config.rollout_length,
        "updates": updates,
        "epochs": config.epochs,
        "baseline_epochs": config.baseline_epochs if config.algorithm.has_baseline else 0,
        "env_steps": env_steps,
        "lower_seconds": lowering,
        "compile_seconds": compiling,
        "first_seconds": seconds[0],
        "run_seconds": seconds[1:],
        "steps_per_second": [env_steps / each for each in seconds[1:]],
        "devices": mesh.size,
        "device_bytes": program_bytes(compiled),
        "peak_device_bytes": stats.get("peak_bytes_in_use"),
        "peak_rss_bytes": peak_rss(),
        "imported_rss_bytes": imported,
        "surroundings": surroundings(),
    }


def peak_rss() -> int:
    """The most bytes that this process has had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_process(**point: Any) -> dict[str, Any]:
    """`measure`, in a process of its own."""
    command = [sys.executable, __file__, "--point", json.dumps(point)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(point: dict[str, Any]) -> list[str]:
    """A point as a line of the table."""
    return [
        point["algo"],
        str(point["seeds"]),
        str(point["num_envs"]),
        str(point["updates"]),
        f"{point['lower_seconds']:.1f} + {point['compile_seconds']:.1f}",
        spread(point["steps_per_second"]).show(1e3),
        f"{point['device_bytes'] / MEGABYTE:.2f}",
        f"{point['peak_rss_bytes'] / MEGABYTE:.0f}",
    ]


HEADER = (
    "algo",
    "seeds",
    "envs",
    "updates",
    "trace + compile s",
    "k steps/s, median [range]",
    "device MB",
    "peak RSS MB",
)
WIDTHS = (10, 6, 5, 8, 18, 26, 10, 12)


def show_row(cells: Sequence[str]) -> str:
    """A line of the table, printed as soon as its point is there."""
    pairs = list(zip(cells, WIDTHS, strict=True))
    return "".join([cells[0].ljust(WIDTHS[0]), *(cell.rjust(width) for cell, width in pairs[1:])])


def growth(points: Sequence[dict[str, Any]]) -> list[list[str]]:
    """What an update more costs one seed in memory, on all devices and in the process's peak."""
    rows = []
    for short, long in itertools.pairwise(sorted(points, key=lambda point: point["updates"])):
        more = (long["updates"] - short["updates"]) * long["seeds"]
        per_update = (long["device_bytes"] - short["device_bytes"]) * long["devices"] / more
        resident = long["peak_rss_bytes"] - short["peak_rss_bytes"]
        lengths = f"{short['updates']} -> {long['updates']} updates"
        cells = (f"{per_update:.1f} B", f"{resident / more / 1e3:.1f} kB")
        rows.append([lengths, *cells, f"{resident / MEGABYTE:+.1f} MB"])
    return rows


def figure(points: Sequence[dict[str, Any]]) -> Any:
    """Steps a second and memory over seeds, a line for each algorithm and number of envs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    drawing = Figure(figsize=(7.2, 3.1), dpi=200, layout="constrained")
    speed, memory = drawing.subplots(1, 2)
    lines = sorted({(point["algo"], point["num_envs"]) for point in points})
    colors = ("#3465a4", "#c4662d", "#3d8f5f", "#8a4f9e", "#666666", "#b5a642")
    for i, (algo, num_envs) in enumerate(lines):
        own = [p for p in points if (p["algo"], p["num_envs"]) == (algo, num_envs)]
        own.sort(key=lambda point: point["seeds"])
        seeds = [point["seeds"] for point in own]
        rates = [spread(point["steps_per_second"]) for point in own]
        style: Any = {"color": colors[i % len(colors)], "linewidth": 1.4, "markersize": 4}
        label = f"{algo.upper()}, {num_envs} envs"
        middle = [rate.median for rate in rates]
        bars = [
            [rate.median - rate.low for rate in rates],
            [rate.high - rate.median for rate in rates],
        ]
        speed.errorbar(seeds, middle, bars, marker="o", capsize=2, label=label, **style)
        device = [point["device_bytes"] / MEGABYTE for point in own]
        rss = [point["peak_rss_bytes"] / MEGABYTE for point in own]
        memory.plot(seeds, device, marker="o", label=f"{label}: each device", **style)
        memory.plot(
            seeds, rss, marker="s", ls="--", label=f"{label}: process", **style, fillstyle="none"
        )
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axes, title in ((speed, "trained env steps per second"), (memory, "peak memory, MB")):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(plain)
        axes.set_xticks(sorted({point["seeds"] for point in points}))
        axes.set_xlabel("seeds", fontsize=9)
        axes.set_title(title, fontsize=9.5, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    speed.set_yscale("log")
    memory.set_yscale("log")
    memory.yaxis.set_major_formatter(plain)
    highest = max(max(point["steps_per_second"]) for point in points)
    lowest = min(min(point["steps_per_second"]) for point in points)
    ticks = [m * 10**e for e in range(3, 10) for m in (1, 2, 5)]
    speed.set_yticks([tick for tick in ticks if lowest / 2 <= tick <= highest * 2])
    speed.set_ylim(lowest / 1.6, highest * 1.6)
    speed.yaxis.set_major_formatter(FuncFormatter(_thousands))
    for axes in (speed, memory):
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=7)
    return drawing


def _thousands(value: float, _: Any) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algos", nargs="+", default=["vpg", "ppo"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--envs", nargs="+", type=int, default=[16])
    parser.add_argument("--updates", type=int, help="by default 600,000 env steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[8, 128],
        help=f"updates of the runs whose memory is compared; {LENGTHS_SEEDS} seeds",
    )
    parser.add_argument("--output", type=Path, help="JSON, by default results/throughput_DEVICE")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(**options.point)))
        return

    def point(repeats: int = options.repeats, **sizes: Any) -> dict[str, Any]:
        found = in_process(repeats=repeats, **sizes)
        print(show_row(row(found)), flush=True)
        return found

    print(show_row(HEADER), flush=True)
    points = [
        point(algo=algo, seeds=seeds, num_envs=envs, updates=options.updates)
        for algo, envs, seeds in itertools.product(options.algos, options.envs, options.seeds)
    ]
    print("\nthe same run, shorter and longer", flush=True)
    lengths = [
        point(
            repeats=1,
            algo=options.algos[0],
            seeds=LENGTHS_SEEDS,
            num_envs=options.envs[0],
            updates=updates,
        )
        for updates in options.lengths
    ]
    print()
    header = ("an update more of a seed", "devices", "peak RSS", "peak RSS in all")
    print(show_table(header, growth(lengths)))

    around = points[0]["surroundings"]
    for each in [*points, *lengths]:
        del each["surroundings"]
    output = options.output or RESULTS / f"throughput_{around['platform']}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    result = {"surroundings": around, "points": points, "lengths": lengths}
    output.write_text(json.dumps(result, indent=2) + "\n")
    figure(points).savefig(output.with_suffix(".png"))
    print(f"{output} and {output.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
