"""`bench`: how fast this machine trains, point after point, each in a process of its own."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from purerl.checks import require_positive_int, short_repr
from purerl.config.presets import FACTORIES
from purerl.experiment.hosts.stopping import RunError
from purerl.experiment.store import files
from purerl.experiment.store.own_files import require_writable
from purerl.experiment.store.paths import as_directory
from purerl.measuring.limits import Limit
from purerl.measuring.points import Point, PointRequest
from purerl.seeds import require_seed_count

RESULT, FIGURE = "bench.json", "bench.png"


@dataclasses.dataclass(frozen=True)
class Bench:
    """What `bench` measured; its JSON has the same fields."""

    env: str
    settings: dict[str, Any]
    repeats: int
    machine: dict[str, Any]
    """Device, cores, versions and flags."""
    limit: Limit | None
    """What the products of an env step are compared with; None without floors."""
    points: tuple[Point, ...]


def bench(
    env: str = "CartPole-v1",
    algo: str | Sequence[str] = "vpg",
    *,
    seeds: int | Sequence[int] = (1, 16, 256),
    num_envs: int | Sequence[int] | None = None,
    updates: int | None = None,
    repeats: int = 5,
    floor: bool = True,
    memory_limit: int | None = None,
    directory: str | Path | None = None,
    progress: Callable[[Point], Any] | None = None,
    **settings: Any,
) -> Bench:
    """Time the training of every algorithm with every number of environments and of seeds.

    Each point is a process of its own, which compiles the program of `train_seeds`, runs it once,
    and then `repeats` times with other keys, in turn with the floor: environments and the policy
    alone. One that runs out of memory is a point that says so. On a GPU, call this before anything
    of this process has taken its memory.

    **Arguments:** `env` is a name or an import path; `seeds` are counts; `updates` are those of one
    run, by default as many as make it long enough to be timed; `memory_limit` is in bytes, of each
    device; `directory` gets `bench.json`, written anew after each point, and `bench.png`;
    `progress` is called with each point as it is there; `settings` are those of `preset`.

    **Raises:** `ValueError` for what a run would refuse, before anything is timed.
    """
    algos = (algo,) if isinstance(algo, str) else tuple(algo)
    counts = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    sizes = (num_envs,) if num_envs is None or isinstance(num_envs, int) else tuple(num_envs)
    require_positive_int("repeats", repeats)
    for name, value in (("updates", updates), ("memory_limit", memory_limit)):
        if value is not None:
            require_positive_int(name, value)
    for name in algos:
        if name not in FACTORIES:
            raise ValueError(f"algo = {name!r} is not known; use {' or '.join(FACTORIES)}.")
    for count in counts:
        require_positive_int("seeds", count)
        require_seed_count(count)
    if not (algos and counts and sizes):
        raise ValueError("algo, seeds and num_envs must each name at least one.")
    path = os.getcwd() if ":" in env else None
    requests = [
        PointRequest(env, each, count, size, updates, repeats, floor, memory_limit, settings, path)
        for each, size, count in itertools.product(algos, sizes, counts)
    ]
    checked = check(requests)
    folder = None if directory is None else _require_folder(directory)
    points: list[Point] = []
    result = Bench(env, settings, repeats, checked["machine"], checked["limit"], ())
    for request in requests:
        points.append(measure(request))
        result = dataclasses.replace(result, points=tuple(points))
        if folder is not None:
            files.write_json(folder / RESULT, dataclasses.asdict(result))
        if progress is not None:
            progress(points[-1])
    if folder is not None:
        from purerl.experiment.report.drawing import draw
        from purerl.measuring.figures import save_bench

        advice = "the numbers are in bench.json"
        draw({folder / FIGURE: lambda path: save_bench(result.points, path)}, advice)
    return result


def _require_folder(directory: str | Path) -> Path:
    """The directory of the results, made where it is not; a run's own files stay."""
    folder = as_directory(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, FIGURE):
        require_writable("directory", folder / name)
    return folder


def check(requests: Sequence[PointRequest]) -> dict[str, Any]:
    """In another process: refuse what a run would refuse, and describe the machine and its limit.

    **Raises:** `ValueError`, or `RunError` where that process does not end well.
    """
    answer, ending = _ask({"check": [dataclasses.asdict(each) for each in requests]})
    if "checked" not in answer:
        raise RunError(f"the machine cannot be measured: {answer.get('failed', ending)}")
    limit = answer["checked"]["limit"]
    return answer["checked"] | {"limit": None if limit is None else Limit(**limit)}


def measure(request: PointRequest) -> Point:
    """A point, measured in another process, or with the reason why it could not be.

    **Raises:** `ValueError` for what a run would refuse.
    """
    answer, ending = _ask({"measure": dataclasses.asdict(request)})
    if "point" in answer:
        return Point(**answer["point"])
    failed = answer.get("failed", ending)
    return Point(request.algo, request.seeds, request.num_envs, failed=failed)


def _ask(question: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The answer of another process, empty where there is none; and how that process ended."""
    requests = question.get("check", [question.get("measure")])
    try:
        text = json.dumps(question)
    except TypeError:
        raise ValueError(
            f"settings = {short_repr(requests[0]['settings'])} cannot be given to another process; "
            f"use numbers, names and tuples of them."
        ) from None
    root = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
        "JAX_ENABLE_COMPILATION_CACHE": "0",  # the seconds of compiling are measured
    }
    with tempfile.TemporaryDirectory() as directory:
        asked, answered = Path(directory, "question.json"), Path(directory, "answer.json")
        asked.write_text(text)
        process = subprocess.run(
            # -P: the current directory is not where its modules come from.
            [sys.executable, "-P", "-m", "purerl.measuring.points", asked, answered],
            env=environment,
            capture_output=True,
            text=True,
        )
        answer = json.loads(answered.read_text()) if answered.exists() else {}
    if "refused" in answer:
        raise ValueError(answer["refused"])
    return answer, _ending(process)


def _ending(process: Any) -> str:
    """How a process ended that gave no answer."""
    if process.returncode == -signal.SIGKILL:
        return "killed (signal 9), as a system does where memory runs out"
    lines = process.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with exit code {process.returncode}"
