"""How many times faster than its peers does purerl do the same work, on the same machine?

PPO on CartPole-v1 by purerl, rejax and Stable-Baselines3, with the same networks, environments,
rollout, epochs, minibatches, seeds and env steps. Each trainer is a process of its own that stays
alive, and they take turns: A B C A B C … The result is the ratio of the medians.

    python benchmarks/peers.py                                   # makes .venv-peers at first
    python benchmarks/peers.py --only rejax --settings 4x128x16 --repeats 5
    python benchmarks/peers.py --only rejax --purerl . ../other  # two checkouts, in one run

Everything runs on the CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from arguments import count
from contenders import CONTENDERS, even_devices
from surroundings import revision, surroundings
from text_tables import show_table

from purerl.experiment.hosts.startup import count_cores
from purerl.measuring.spreads import ratio, spread

TOP = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
OURS = ("purerl", "purerl-one-device")
PACKAGES = (
    "rejax==0.1.3",
    "gymnax==0.0.9",
    "jax=={jax}",  # the version that purerl runs on
    "torch==2.13.0",
    "stable-baselines3==2.9.2",
)
# Env steps over all seeds in one training, so that it takes about a second.
STEPS = {"sb3": 8_192}
USUAL_STEPS = 262_144


class Setting(NamedTuple):
    """The size of one agent's rollout, and how many agents."""

    num_envs: int
    rollout_length: int
    seeds: int

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """`4x128x16`: environments, rollout length, seeds."""
        try:
            return cls(*(int(each) for each in text.split("x")))
        except (TypeError, ValueError):
            message = f"{text!r} is not ENVSxROLLOUTxSEEDS, such as 4x128x16"
            raise argparse.ArgumentTypeError(message) from None

    def __str__(self) -> str:
        return "x".join(str(size) for size in self)

    def work(self, name: str) -> dict[str, int]:
        """What a trainer is told to do; Stable-Baselines3 trains one seed, and fewer updates."""
        seeds = 1 if name == "sb3" else self.seeds
        per_update = self.num_envs * self.rollout_length * seeds
        updates = max(1, STEPS.get(name, USUAL_STEPS) // per_update)
        return {**self._asdict(), "seeds": seeds, "updates": updates}


SETTINGS = [Setting(4, 128, 16), Setting(64, 128, 4), Setting(4, 128, 1)]


class Worker:
    """A process with one trainer in it."""

    def __init__(
        self, label: str, work: dict[str, Any], command: list[str], variables: dict[str, str]
    ):
        self.label = label
        self.work = work
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )
        self.about: dict[str, Any] = {}
        self.first_seconds = 0.0
        self.repeats: list[dict[str, Any]] = []
        self.failed: str | None = None

    def wait(self) -> None:
        """Let it import what it needs."""
        self.about = self._answer()

    def run(self) -> dict[str, Any]:
        """One training from scratch."""
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def rates(self) -> list[float]:
        """Trained env steps a second, of each repeat."""
        return [each["env_steps"] / each["seconds"] for each in self.repeats]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerEnded(f"{self.label} ended with code {self.process.wait()}")
        return json.loads(line)


class WorkerEnded(Exception):
    """A trainer died; the others go on without it."""


def contender(label: str, name: str, setting: Setting, python: Path, home: Path | None) -> Worker:
    """A trainer on the CPU, by the interpreter of its environment."""
    work = setting.work(name)
    script = str(Path(__file__).with_name("contenders.py"))
    command = [str(python), script, name, json.dumps(work)]
    return Worker(label, work, command, environment(name, setting, home))


def environment(name: str, setting: Setting, home: Path | None) -> dict[str, str]:
    """The variables of a worker: where purerl comes from, and how many devices there are."""
    cores = count_cores()
    devices = {"purerl": cores, "rejax-pmap": even_devices(setting.seeds, cores)}.get(name, 1)
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    variables.pop("PYTHONPATH", None)
    if home is not None:
        variables["PYTHONPATH"] = str(home)
    return variables


def peers_python(folder: Path) -> Path:
    """The interpreter of the environment with the peers, which is made where it is not."""
    import jax

    python = folder / "bin" / "python"
    done = folder / ".installed"
    if not done.exists():
        print(f"installing the peers into {folder}", flush=True)
        venv.create(folder, with_pip=True)
        packages = [package.format(jax=jax.__version__) for package in PACKAGES]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        done.touch()
    return python


def start(names: list[str], setting: Setting, homes: list[Path], peers: Path) -> list[Worker]:
    """A worker for each trainer; purerl's for each checkout."""
    workers = []
    for name in names:
        if name == "rejax-pmap" and setting.seeds == 1:
            continue  # one seed cannot be spread
        if name not in OURS:
            workers.append(contender(name, name, setting, peers, None))
            continue
        for home in homes:
            own = home / ".venv" / "bin" / "python"
            python = own if own.exists() else Path(sys.executable)
            label = name if len(homes) == 1 else f"{name} ({home.name})"
            workers.append(contender(label, name, setting, python, home))
    return workers


def compare(workers: list[Worker], repeats: int) -> list[Worker]:
    """Let each worker compile, and then train in turn, in an order that rotates.

    **Returns:** those that lived to the end; of the others `failed` says what happened.
    """
    living = list(workers)

    def each(workers: list[Worker], act: Callable[[Worker], Any]) -> None:
        for worker in workers:
            try:
                act(worker)
            except (WorkerEnded, BrokenPipeError) as error:
                worker.failed = str(error)
                living.remove(worker)
                print(worker.failed, file=sys.stderr, flush=True)

    def compile_first(worker: Worker) -> None:
        worker.first_seconds = worker.run()["seconds"]

    each(list(living), lambda worker: worker.wait())
    each(list(living), compile_first)
    for repeat in range(repeats):
        shift = repeat % max(1, len(living))
        turn = living[shift:] + living[:shift]
        each(turn, lambda worker: worker.repeats.append(worker.run()))
    return living


def report(setting: Setting, workers: list[Worker], peers: list[str]) -> dict[str, Any]:
    """The figures of one setting, printed as a table and returned, of workers that lived."""
    rows, found = [], {}
    by_label = {worker.label: worker for worker in workers}
    here = [name for name in peers if name in by_label]
    for worker in workers:
        rates = worker.rates()
        seconds = spread([each["seconds"] for each in worker.repeats])
        ratios = {name: ratio(rates, by_label[name].rates()) for name in here}
        compile_seconds = max(0.0, worker.first_seconds - seconds.median)
        found[worker.label] = {
            "work": worker.work,
            "steps_per_second": spread(rates)._asdict(),
            "compile_seconds": compile_seconds,
            "ratio_to": {name: each._asdict() for name, each in ratios.items()},
            "repeats": worker.repeats,
            "versions": worker.about["versions"],
            "revision": revision(Path(home)) if (home := worker.about["home"]) else None,
        }
        rows.append(
            [worker.label, spread(rates).show(1e3, 1), f"{compile_seconds:.1f}"]
            + [each.show(digits=2) for each in ratios.values()]
        )
    header = ["", "k steps/s, median [range]", "compile s", *(f"ratio to {name}" for name in here)]
    seeds = "1 seed" if setting.seeds == 1 else f"{setting.seeds} seeds"
    print(f"\n{setting.num_envs} envs x {setting.rollout_length}, {seeds}")
    print(show_table(header, rows), flush=True)
    return {"setting": setting._asdict(), "contenders": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(CONTENDERS),
        default=list(CONTENDERS),
        metavar="NAME",
        help=f"of {', '.join(CONTENDERS)}; both of purerl's are added where neither is named",
    )
    parser.add_argument("--settings", nargs="+", type=Setting.parse, default=SETTINGS)
    parser.add_argument("--repeats", type=count, default=7)
    parser.add_argument("--purerl", nargs="+", type=Path, default=[TOP], help="checkouts of purerl")
    parser.add_argument("--environment", type=Path, default=TOP / ".venv-peers")
    parser.add_argument("--output", type=Path, default=RESULTS / "peers_cpu.json")
    options = parser.parse_args()

    names = list(dict.fromkeys(options.only))
    if not any(name in OURS for name in names):
        names = [*OURS, *names]
    peers = [name for name in names if name not in OURS]
    homes = [path.resolve() for path in options.purerl]
    python = peers_python(options.environment)
    results = []
    for setting in options.settings:
        workers = start(names, setting, homes, python)
        living = compare(workers, options.repeats)
        for worker in living:
            worker.close()
        failed = {each.label: each.failed for each in workers if each.failed}
        results.append({**report(setting, living, peers), "failed": failed})
        options.output.parent.mkdir(parents=True, exist_ok=True)
        result = {"surroundings": surroundings(), "results": results}
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
