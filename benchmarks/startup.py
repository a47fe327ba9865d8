"""How long is it from the shell to the first answer?

`purerl train` on CartPole-v1 with 64 seeds, started as a person would start it, until 95 % of the
seeds are solved: at the first of the evaluations during training at which the mean greedy return
of that many seeds is 475 or more. Once *cold*, with an empty compilation cache, and once *warm*,
with the cache that the cold run left; each repeat has a cache of its own.

The cache is JAX's persistent one, switched on by environment variables, whatever purerl itself does
about one: `JAX_COMPILATION_CACHE_DIR`, with `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0` and
`JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1` so that every program is kept.

**solved**: seconds from the start of the process to that evaluation in its log. **import**: what
the command prints of its imports, rich and tyro included. **compile**, **run**: what the run's
summary says. **ended**: seconds to the end of the process.
**import purerl**, **first config**: seconds of a Python process that does no more than that; the
first `purerl.vpg("CartPole-v1")` imports jax, equinox, optax and gymnax.

    python benchmarks/startup.py
    python benchmarks/startup.py --seeds 16 --repeats 1 --evaluate-every 7
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import count
from text_tables import show_table

from purerl.measuring.spreads import spread

RESULTS = Path(__file__).parent / "results"
SOLVED = 475.0
SHARE = 0.95
IMPORTS = {
    "import purerl": "import purerl",
    "first config": 'import purerl; purerl.vpg("CartPole-v1")',
}


def share_solved(record: dict[str, Any], target: float = SOLVED) -> float | None:
    """The share of seeds whose greedy return reaches the target; None where none was played."""
    returns = [value for name, value in record.items() if name.startswith("greedy_return/seed_")]
    if not returns:
        return None
    return sum(value is not None and value >= target for value in returns) / len(returns)


def first_solved(lines: list[str], share: float = SHARE) -> dict[str, Any] | None:
    """The first record of a log at which enough seeds are solved; a line half-written is none."""
    for line in lines:
        if not line.endswith("\n"):
            return None
        record = json.loads(line)
        if (solved := share_solved(record)) is not None and solved >= share:
            return record
    return None


def train(options: argparse.Namespace, directory: Path, cache: Path) -> dict[str, Any]:
    """One `purerl train`, watched until it ends."""
    purerl = Path(sys.executable).with_name("purerl")
    command = [
        str(purerl),
        "train",
        *("--seeds", str(options.seeds), "--directory", str(directory)),
        *("--evaluate-every", str(options.evaluate_every), "--log", "jsonl", "--log-seeds"),
    ]
    log, printed = directory / "metrics.jsonl", directory.with_suffix(".txt")
    start = time.perf_counter()
    with printed.open("w") as out:
        process = subprocess.Popen(
            command, env=with_cache(cache), stdout=out, stderr=subprocess.DEVNULL
        )
    solved = None
    while solved is None and process.poll() is None:
        time.sleep(0.02)
        if log.exists():
            with log.open() as lines:
                solved = first_solved(lines.readlines())
    seconds = time.perf_counter() - start
    if process.wait():
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    ended = time.perf_counter() - start
    summary = json.loads((directory / "summary.json").read_text())
    return {
        "solved": seconds if solved else None,
        "solved_at_updates": solved["updates"] if solved else None,
        "import": import_seconds(printed.read_text()),
        "compile": summary["times"]["compile"],
        "run": summary["times"]["run"],
        "ended": ended,
    }


def import_seconds(printed: str) -> float:
    """The first of the seconds in the table that `purerl train` prints."""
    row = re.search(r"seconds: import \+ .*?([0-9.]+) \+", printed)
    if row is None:
        raise ValueError(f"no seconds of imports in what was printed:\n{printed}")
    return float(row[1])


def with_cache(folder: Path) -> dict[str, str]:
    """The environment with a persistent compilation cache in a folder."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def python_seconds(code: str) -> float:
    """How long a fresh interpreter takes for some code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def repeat(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The imports, a cold run, and a warm one."""
    imports = {name: python_seconds(code) for name, code in IMPORTS.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runs = {name: train(options, folder / name, folder / "cache") for name in ("cold", "warm")}
    return {"imports": imports, **runs}


def table(repeats: list[dict[str, dict[str, Any]]]) -> str:
    """Medians and ranges of the seconds."""
    names = ("solved", "import", "compile", "run", "ended")
    rows = []
    for run in ("cold", "warm"):
        columns = [[each[run][name] for each in repeats] for name in names]
        rows.append([run, *("-" if None in column else show(column) for column in columns)])
    lines = [show_table(["", *(f"{name} s" for name in names)], rows), ""]
    lines += [f"{name}: {show([each['imports'][name] for each in repeats])} s" for name in IMPORTS]
    return "\n".join(lines)


def show(seconds: list[float]) -> str:
    """A median with its range, to a tenth."""
    return spread(seconds).show(digits=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=count, default=64)
    parser.add_argument("--evaluate-every", type=count, default=21, help="updates")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--output", type=Path, help="by default results/startup_DEVICE.json")
    options = parser.parse_args()
    repeats = []
    for _ in range(options.repeats):
        repeats.append(repeat(options))
        cold, warm = (repeats[-1][run]["solved"] for run in ("cold", "warm"))
        print(f"solved after: cold {cold} s, warm {warm} s", flush=True)
    print(table(repeats))
    # Only now: this process would hold a device while the others want it.
    from surroundings import surroundings

    around = surroundings()
    output = options.output or RESULTS / f"startup_{around['platform']}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "surroundings": around,
        "seeds": options.seeds,
        "evaluate_every": options.evaluate_every,
        "target_return": SOLVED,
        "share": SHARE,
        "repeats": repeats,
    }
    output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
