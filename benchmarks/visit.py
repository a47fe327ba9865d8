"""Everything that only an accelerator can say, in one command and a few minutes.

The stages run in order of value, each in a process of its own with a time limit of its own. What
they find stands in one file, `visit_DEVICE.json`, which is written whole after each part. Called
again with that file there, it does what is missing. The last lines are one table.

    python benchmarks/visit.py --minutes 8 --output DIR
    python benchmarks/visit.py --output DIR --only 3 4        # these, and again what failed in them
    python benchmarks/visit.py --rehearse --output DIR        # all of it on a CPU, with tiny sizes
    python benchmarks/visit.py --wheels SITE                  # fetch what the target lacks
    python benchmarks/visit.py --minutes 8 --output DIR --site SITE
"""

import argparse
import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from surroundings import revision
from visiting import record as records
from visiting.stage import Stage, do_stage, one_line, write_whole
from visiting.wheels import download, install, python_path

ROOT = Path(__file__).resolve().parents[1]
RESERVE = 8.0  # seconds that are kept for the figure and the table
SHORTEST = 5.0  # seconds: a stage is not begun with less
REHEARSAL = 3.0  # times the limits of stages
START = "start"  # what a process is at that ends before its first part


def stages_of(module: str) -> list[Stage]:
    """The stages that a module lists."""
    return importlib.import_module(module).STAGES


class Visit:
    """One call: what is asked for, and until when."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.stages = stages_of(options.stages)
        self.ends = time.monotonic() + 60 * options.minutes - RESERVE
        # So deep that a machine that hands back a few files of the first folders leaves them there.
        self.below = options.output.resolve() / "below" / "first"
        self.site = None if options.site is None else install(options.site)
        self.revision = revision(ROOT)

    def run(self) -> dict[str, Any]:
        """Do what is missing, and write the record after each part."""
        first, *others = self.stages
        # Always: the file has the name of the device that is here now.
        found = self.do(first, {}, lambda parts: None)
        device = next((part.get("device") for part in found["parts"].values()), None)
        path = records.file_of(self.options.output, device or "unknown")
        self.below = self.below.with_name(path.stem)
        record = records.read_record(path)
        record["rehearsal"] = self.options.rehearse
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        call = {"began": began, "minutes": self.options.minutes, "revision": self.revision}
        record["calls"].append(call)
        records.keep(record, first, found["status"], found["parts"])
        write_whole(path, record)
        for stage in others:
            if self.is_asked(stage, record):
                self.go_on(stage, record, path)
        print(records.table(record, self.stages), flush=True)
        self.draw(record, path.with_suffix(".png"))
        print(path)
        return record

    def draw(self, record: dict[str, Any], path: Path) -> None:
        """Draw the points of throughput, as `purerl bench` does, where there are any."""
        found = records.points(record)
        if not found:
            return
        sys.path += [str(ROOT), *python_path(self.site)]
        try:  # here: the imports take seconds, and a visit is whole without its figure
            from purerl.measuring.figures import save_bench
            from purerl.measuring.points import Point

            save_bench([Point(**point) for point in found], path)
        except Exception as error:
            print(f"{path} is not drawn: {one_line(error)}", flush=True)

    def is_asked(self, stage: Stage, record: dict[str, Any]) -> bool:
        """Whether a stage is to be done in this call."""
        only = self.options.only
        return stage.number in only if only else records.is_missing(record, stage)

    def go_on(self, stage: Stage, record: dict[str, Any], path: Path) -> None:
        """Do a stage, as far as the time suffices; its line says how far."""
        parts = record["stages"].get(stage.name, {}).get("parts", {})
        if self.options.only:
            parts = records.without_failures(parts)

        def keep(parts: dict[str, Any], status: str = records.BEGUN) -> None:
            records.keep(record, stage, status, parts)
            write_whole(path, record)

        left = self.ends - time.monotonic()
        if left < SHORTEST:
            print(f"{stage.number} {stage.name}: left out, no time is left", flush=True)
            keep(parts, records.CUT)
        else:
            found = self.do(stage, parts, keep)
            keep(found["parts"], found["status"])

    def do(
        self, stage: Stage, parts: dict[str, Any], keep: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Let a process do a stage within its limit, or the time that is left.

        Where its process ends in a part, that part has failed, and another one goes on. `keep` is
        called with the parts that there are whenever there is one more.
        """
        folder = self.below / f"{stage.number}-{stage.name.replace(' ', '-')}"
        folder.mkdir(parents=True, exist_ok=True)
        answer = folder / "answer.json"
        parts = {name: part for name, part in parts.items() if name != START}
        # In a rehearsal a slow CPU compiles what a GPU's host would in a fraction of the time.
        ends = time.monotonic() + stage.limit * (REHEARSAL if self.options.rehearse else 1)
        is_shorter = self.ends < ends
        ends = min(ends, max(self.ends, time.monotonic() + SHORTEST))
        while True:
            seconds = ends - time.monotonic()
            shorter = ", shortened" if is_shorter else ""
            print(f"{stage.number} {stage.name}: at most {seconds:.0f} s{shorter}", flush=True)
            ending = self.start(stage, parts, folder, seconds, keep)
            found = json.loads(answer.read_text())
            parts, at = found["parts"], found["at"]
            if "left" in found:
                status = records.CUT if found["left"] else records.DONE
            elif ending is None and is_shorter:
                status = records.CUT
            else:
                # The part is not tried again in another call: it would take others' time once more.
                reason = f"not done after {seconds:.0f} s" if ending is None else ending
                parts[at or START] = {"failed": reason, "revision": self.revision}
                print(f"{stage.number} {stage.name}: {at or START}: {reason}", flush=True)
                if ending is not None and at is not None and ends - time.monotonic() > SHORTEST:
                    continue
                status = records.BROKEN
            answer.unlink()
            return {"status": status, "parts": parts}

    def start(
        self,
        stage: Stage,
        parts: dict[str, Any],
        folder: Path,
        seconds: float,
        keep: Callable[[dict[str, Any]], None],
    ) -> str | None:
        """Run the process of a stage; None where it was stopped, else how it ended."""
        ends = time.monotonic() + seconds
        request = {
            "parent": os.getpid(),
            "revision": self.revision,
            "stages": self.options.stages,
            "stage": stage.name,
            "rehearse": self.options.rehearse,
            "scratch": str(folder),
            "site": None if self.site is None else str(self.site),
            "seconds": seconds,
            "parts": parts,
            "answer": str(folder / "answer.json"),
        }
        write_whole(folder / "request.json", request)
        write_whole(folder / "answer.json", {"parts": parts, "at": None})
        command = [sys.executable, str(Path(__file__).resolve()), "--do", folder / "request.json"]
        with open(folder / "said.txt", "a") as said:
            process = subprocess.Popen(
                command,
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment(),
                start_new_session=True,
            )
            try:
                code, known = None, None  # failures of before are kept too
                while code is None and time.monotonic() < ends:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        code = process.wait(timeout=min(1.0, max(0.0, ends - time.monotonic())))
                    found = json.loads((folder / "answer.json").read_text())["parts"]
                    if found != known:
                        keep(known := found)
                if code is None:
                    return None
            finally:  # what it has started too; also where this is interrupted
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        killed = " (killed, as a system does where memory runs out)" * (code == -signal.SIGKILL)
        return f"its process ended with code {code}{killed}"

    def environment(self) -> dict[str, str]:
        """The variables of a stage: purerl is that of this checkout."""
        paths = [str(ROOT), *python_path(self.site), os.environ.get("PYTHONPATH", "")]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        # Of stages that do not ask how long a compiler takes: the default is compiled often.
        variables["JAX_COMPILATION_CACHE_DIR"] = str(self.below.parent / "cache" / "jax")
        platforms = os.environ.get("JAX_PLATFORMS", "")
        if platforms and "cpu" not in platforms.split(","):  # a proof compares with it
            variables["JAX_PLATFORMS"] = f"{platforms},cpu"
        if self.options.rehearse:
            variables["JAX_PLATFORMS"] = "cpu"
        return variables


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="of this call, by default 8")
    parser.add_argument("--output", type=Path, help="folder of the file")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of stages")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny sizes")
    parser.add_argument("--wheels", type=Path, help="fetch packages into this folder, and end")
    parser.add_argument("--site", type=Path, help="the folder that --wheels has filled")
    parser.add_argument("--stages", default="visiting.stages", help=argparse.SUPPRESS)
    parser.add_argument("--do", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.do is None and options.wheels is None and options.output is None:
        parser.error("--output DIR is needed")
    if not 0 < options.minutes < math.inf:
        parser.error(f"--minutes {options.minutes:g} must be a number above 0")
    return options


def main(args: Sequence[str] | None = None) -> None:
    options = parse(args)
    if options.do is not None:
        request = json.loads(options.do.read_text())
        stages = stages_of(request["stages"])
        do_stage(next(each for each in stages if each.name == request["stage"]), request)
    elif options.wheels is not None:
        download(options.wheels)
    else:
        numbers = {stage.number for stage in stages_of(options.stages)}
        if unknown := set(options.only or ()) - numbers:
            raise SystemExit(
                f"--only {min(unknown)}: the stages are {min(numbers)} to {max(numbers)}"
            )
        options.output.mkdir(parents=True, exist_ok=True)
        Visit(options).run()


if __name__ == "__main__":
    main()
