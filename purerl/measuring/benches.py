"""`bench`: how fast this machine trains, point after point, each in a process of its own."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from purerl.checks import option, require_positive_int, require_sendable
from purerl.config.presets import FACTORIES
from purerl.config.settings import OBJECT_SETTINGS, OF_PRESET, shows_settings
from purerl.experiment.hosts.asking import ask
from purerl.experiment.hosts.stopping import RunError
from purerl.experiment.report.drawing import draw
from purerl.experiment.store import files
from purerl.experiment.store.own_files import require_writable
from purerl.experiment.store.paths import as_directory, shown
from purerl.measuring.limits import Limit
from purerl.measuring.points import Point, PointRequest

RESULT, FIGURE, LOG = "bench.json", "bench.png", "bench.log"
PROCESS = "purerl.measuring.point_process"


@dataclasses.dataclass(frozen=True)
class Bench:
    """What `bench` measured; its JSON has the same fields."""

    env: str
    settings: dict[str, Any]
    repeats: int
    machine: dict[str, Any]
    """Device, cores, versions and flags."""
    limit: Limit | None
    """Of the whole machine; None without floors."""
    points: tuple[Point, ...]


@shows_settings(otherwise=OF_PRESET, without=(*OBJECT_SETTINGS, "total_steps"))
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
    device; `directory` gets `bench.json`, written anew after each point, `bench.png`, and
    `bench.log` with what the processes say; `progress` is called with each point as it is there;
    `settings` are those of `preset`.

    **Raises:** `ValueError` for what a run would refuse, and where the directory has a bench
    already, before anything is timed.
    """
    require_sendable(env, settings)
    algos = (algo,) if isinstance(algo, str) else tuple(algo)
    counts = _whole_numbers("seeds", seeds)
    sizes = (None,) if num_envs is None else _whole_numbers("num_envs", num_envs)
    require_positive_int("repeats", repeats)
    for name, value in (("updates", updates), ("memory_limit", memory_limit)):
        if value is not None:
            require_positive_int(name, value)
    if "total_steps" in settings:
        raise ValueError("total_steps has no effect: a bench counts in updates; use updates.")
    for name in algos:
        if name not in FACTORIES:
            raise ValueError(f"algo = {name!r} is not known; use {' or '.join(FACTORIES)}.")
    if not (algos and counts and sizes):
        raise ValueError("algo, seeds and num_envs must each name at least one.")
    folder = None if directory is None else as_directory(directory)
    if folder is not None and (folder / RESULT).is_file():
        raise ValueError(
            f"directory = {shown(folder)!r} has the {RESULT} of another bench; name another one "
            f"with {option('directory', f'{shown(folder)}-2')}."
        )
    path = os.getcwd() if ":" in env else None
    requests = [
        PointRequest(env, each, count, size, updates, repeats, floor, memory_limit, settings, path)
        for each, size, count in itertools.product(algos, sizes, counts)
    ]
    checked = check(requests)
    log = None
    if folder is not None:
        _require_folder(folder)
        log = folder / LOG
    points: list[Point] = []
    result = Bench(env, settings, repeats, checked["machine"], checked["limit"], ())
    for request in requests:
        points.append(measure(request, log))
        result = dataclasses.replace(result, points=tuple(points))
        if folder is not None:
            files.write_json(folder / RESULT, dataclasses.asdict(result))
        if progress is not None:
            progress(points[-1])
    if folder is not None:
        # Here: matplotlib takes a while.
        from purerl.measuring.figures import save_bench

        advice = "the numbers are in bench.json"
        draw({folder / FIGURE: lambda path: save_bench(result.points, path)}, advice)
    return result


def _whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    """One count or several."""
    values = tuple(value) if np.iterable(value) else (value,)
    for each in values:
        require_positive_int(name, each)
    return tuple(map(int, values))


def _require_folder(folder: Path) -> None:
    """Make the directory of the results where it is not; a run's own files stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, FIGURE, LOG):
        require_writable("directory", folder / name)


def check(requests: Sequence[PointRequest]) -> dict[str, Any]:
    """In another process: refuse what a run would refuse, and describe the machine and its limit.

    **Raises:** `ValueError`, or `RunError` where that process does not end well.
    """
    answer, ending = ask(PROCESS, {"check": [dataclasses.asdict(each) for each in requests]})
    if "refused" in answer:
        raise ValueError(answer["refused"])
    if "checked" not in answer:
        raise RunError(f"the machine cannot be measured: {answer.get('failed', ending)}")
    limit = answer["checked"]["limit"]
    return answer["checked"] | {"limit": None if limit is None else Limit(**limit)}


def measure(request: PointRequest, said: Path | None = None) -> Point:
    """A point, measured in another process, or with the reason why it could not be.

    What that process says is added to the file `said`.
    """
    answer, ending = ask(PROCESS, {"measure": dataclasses.asdict(request)}, said)
    if "point" in answer:
        return Point(**answer["point"])
    failed = answer.get("failed") or answer.get("refused") or ending
    return Point(request.algo, request.seeds, request.num_envs, failed=failed)
