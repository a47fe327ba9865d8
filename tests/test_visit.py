"""A visit keeps what its stages find, whatever some of them do, and goes on where it was."""

import dataclasses
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile

import jax
import numpy as np
import pytest
from commands import ROOT

from purerl.measuring.points import Point

VISIT = [sys.executable, str(ROOT / "benchmarks/visit.py")]


def module(name):
    """A module of the visit, or the visit itself, as its script finds it."""
    if str(ROOT / "benchmarks") not in sys.path:
        sys.path.append(str(ROOT / "benchmarks"))
    return importlib.import_module("visit" if name == "visit" else f"visiting.{name}")


def variables(**more):
    paths = [str(ROOT), str(ROOT / "tests/support")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


def begin(output, *args, **more):
    command = [*VISIT, "--stages", "stand_in_stages", "--output", str(output), *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=variables(**more), stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def visit(output, *args, **more):
    """A visit to its end: its record, and what it printed."""
    process = begin(output, *args, **more)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0, said
    return record_of(output), said


def record_of(output):
    (path,) = output.glob("visit_*.json")
    return json.loads(path.read_text())


def outcome(record):
    """What each part came to, and each stage, without their times and revisions."""
    about = ("seconds", "revision")
    return {
        name: (
            stage["status"],
            {
                part: {key: value for key, value in found.items() if key not in about}
                for part, found in stage["parts"].items()
            },
        )
        for name, stage in record["stages"].items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return visit(tmp_path_factory.mktemp("whole"))


def test_what_goes_wrong_leaves_the_rest_and_a_line_each(whole):
    found, said = outcome(whole[0]), whole[1]
    assert list(found) == ["device", "fine", "hanging", "raising", "out of memory", "last"]
    assert found["fine"] == (
        "done",
        {"one": {"line": "fine"}, "two": {"line": "slow"}, "three": {"line": "slow"}},
    )
    status, parts = found["hanging"]
    assert status == "broken off"
    assert parts["before"] == {"line": "fine"}
    assert parts["hang"]["failed"] == "not done after 3 s"
    assert "after" not in parts  # no time was left
    assert found["raising"] == (
        "done",
        {
            "wrong": {"failed": "ValueError: a wrong value"},
            "nothing": {"skipped": "nothing is here"},
            "after": {"line": "fine"},
        },
    )
    status, parts = found["out of memory"]
    assert status == "done"
    assert parts["exhausted"] == {"failed": "MemoryError: RESOURCE_EXHAUSTED"}
    assert parts["killed"]["failed"].startswith("its process ended with code -9 (killed")
    assert parts["after"] == {"line": "fine"}
    table = said[said.index(" 1  device") :]
    for line in (
        *("device: device  ", "hanging: hang  ", "not done after 3 s", "a wrong value"),
        *("MemoryError", "killed, as a system does", "last: one  "),
    ):
        assert line in table


def test_the_file_has_the_name_of_the_device_and_lies_alone(whole, tmp_path):
    visit(tmp_path, "--only", "6")
    assert {path.name for path in tmp_path.iterdir()} == {"visit_Stand-In-1.json", "below"}
    deep = [path.relative_to(tmp_path).parts for path in tmp_path.rglob("*") if path.is_file()]
    assert all(len(parts) == 1 or len(parts) > 3 for parts in deep)


def test_a_second_call_does_what_is_missing_alone(whole, tmp_path):
    first, _ = visit(tmp_path, "--only", "2", "4")
    assert list(first["stages"]) == ["device", "fine", "raising"]
    record, said = visit(tmp_path)
    assert "2 fine: at most" not in said
    assert "4 raising: at most" not in said
    assert outcome(record)["hanging"][1]["hang"] == {"failed": "not done after 3 s"}
    again, said = visit(tmp_path)
    assert "at most" in said
    # What hung is not tried again, and what came after it is there now.
    assert outcome(again)["hanging"] == (
        "done",
        outcome(record)["hanging"][1] | {"after": {"line": "fine"}},
    )
    assert len(again["calls"]) == 3
    asked, said = visit(tmp_path, "--only", "4")
    assert "4 raising: at most" in said
    assert outcome(asked)["raising"] == outcome(whole[0])["raising"]


@pytest.mark.parametrize("after", [0.0, 1.2])
def test_a_visit_that_is_killed_ends_as_one_that_was_not(whole, tmp_path, after):
    with begin(tmp_path, STAND_IN_SECONDS="2") as process:
        for line in process.stdout or ():
            if line.startswith("2 fine"):
                break
        # A part that is done is in the file before its stage is.
        until = time.monotonic() + 20
        while "fine" not in record_of(tmp_path)["stages"] and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
    time.sleep(1.5)  # its stage's process notices
    status, parts = outcome(record_of(tmp_path))["fine"]
    assert (status, parts["one"]) == ("not ended", {"line": "fine"})
    record, _ = visit(tmp_path)
    assert outcome(record) == outcome(whole[0])


def test_the_device_is_the_one_that_is_here_now(tmp_path):
    """Whatever a call that was killed has left of another device."""
    left = tmp_path / "below/first/1-device"
    left.mkdir(parents=True)
    parts = {"device": {"device": "Another", "line": "it is gone"}}
    (left / "answer.json").write_text(json.dumps({"parts": parts, "at": None}))
    record, _ = visit(tmp_path, "--only", "6")
    assert record["stages"]["device"]["parts"]["device"]["device"] == "Stand-In 1"


def test_what_another_revision_has_left_says_so(whole):
    stages, record = module("stages").STAGES[:2], dict(whole[0])
    assert [call["revision"] for call in record["calls"]] == [module("visit").revision(ROOT)]
    parts = {
        "old": {"line": "an old line", "revision": "a"},
        "new": {"failed": "a new line", "revision": "b"},
    }
    entry = {"number": 2, "status": "done", "parts": parts}
    record = {"stages": {stages[1].name: entry}, "calls": [{"revision": "a"}, {"revision": "b"}]}
    lines = module("record").table(record, stages).splitlines()
    assert lines[1].endswith("an old line (of revision a)")
    assert lines[2].endswith("failed: a new line")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A visit in this process, whose stages are not begun."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    made = module("visit")
    visit = made.Visit(made.parse(["--output", str(tmp_path)]))
    visit.site = tmp_path / "installed"
    return visit


@pytest.mark.parametrize(
    ("platforms", "expected"), [("cuda", "cuda,cpu"), ("cuda,cpu", "cuda,cpu"), (None, None)]
)
def test_a_stage_finds_the_cpu_too(platforms, expected, here, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    found = here.environment()
    assert found.get("JAX_PLATFORMS") == expected
    cache = os.path.relpath(found["JAX_COMPILATION_CACHE_DIR"], tmp_path)
    assert len(cache.split(os.sep)) >= 3


def test_the_figure_is_drawn_with_the_packages_of_the_site(here, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("purerl.measuring.figures.save_bench", lambda *args: drawn.append(args))
    point = dataclasses.asdict(Point("vpg", 4, 64))
    record = {"stages": {"throughput": {"parts": {"one": {"point": point}}}}}
    here.draw(record, tmp_path / "figure.png")
    assert drawn == [([Point("vpg", 4, 64)], tmp_path / "figure.png")]
    assert sys.path[-1] == str(tmp_path / "installed/common")


def test_the_target_and_the_wheels_have_every_dependency_of_purerl():
    wheels = module("wheels")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}

    assert names(project["dependencies"]) <= names(wheels.COMMON) | {*wheels.TARGET}


def test_wheels_are_installed_once_each_where_only_its_process_looks(tmp_path):
    wheels = module("wheels")
    for folder in wheels.FOLDERS:
        (tmp_path / folder).mkdir()
        write_wheel(tmp_path / folder, f"stand_in_{folder}")
    installed = wheels.install(tmp_path)
    assert wheels.python_path(installed) == [str(installed / "common")]
    assert wheels.rejax_path(installed) == [str(installed / "rejax"), str(installed / "common")]
    for folder in wheels.FOLDERS:
        assert (installed / folder / f"stand_in_{folder}.py").read_text() == "here = True\n"
    (installed / "common" / "stand_in_common.py").write_text("here = 'still'\n")
    assert wheels.install(tmp_path) == installed
    assert "still" in (installed / "common" / "stand_in_common.py").read_text()
    assert wheels.python_path(None) == wheels.rejax_path(None) == []


def write_wheel(folder, name):
    """A package of one module."""
    about = f"{name}-1.0.dist-info"
    tags = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "here = True\n")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", tags)
        files = (f"{name}.py", f"{about}/METADATA", f"{about}/WHEEL", f"{about}/RECORD")
        wheel.writestr(f"{about}/RECORD", "".join(f"{each},,\n" for each in files))


@pytest.mark.parametrize(
    ("begun", "resumed", "holds"),
    [
        ("whole a\nstopped after-8\n", "a warning of two\nresumed a\n", True),
        ("a line\nwhole a\nstopped after-8\n", "resumed b\n", False),
        ("whole a\n", "resumed a\n", False),  # nothing stopped it
    ],
)
def test_a_run_was_resumed_only_where_it_was_interrupted(
    begun, resumed, holds, tmp_path, monkeypatch
):
    proofs = module("proofs")

    def run(command, **how):
        said = begun if "begin" in command else resumed
        return subprocess.CompletedProcess(command, 0, said, "")

    monkeypatch.setattr(proofs.subprocess, "run", run)
    context = module("stage").Context(True, tmp_path, None, 0.0)
    assert proofs.resumed("")(context)["holds"] == holds


def test_a_seed_alone_has_products_in_float32_proper(tmp_path, monkeypatch):
    proofs, seen = module("proofs"), []

    def train_seeds(keys, config):
        seen.append((len(keys), getattr(jax.config, "jax_default_matmul_precision", None)))
        return np.zeros(len(keys))

    monkeypatch.setattr(proofs.purerl, "train_seeds", train_seeds)
    monkeypatch.setattr(proofs, "difference", lambda *found: {})
    proofs.seed_alone(module("stage").Context(True, tmp_path, None, 0.0))
    assert seen == [(4, "highest"), (1, "highest")]


def test_a_run_whose_imports_are_not_told_keeps_its_summary(tmp_path, monkeypatch):
    whole = module("whole")
    times = {"compile": 1.0, "run": 2.0, "evaluate": 3.0}
    summary = {"times": times, "solved": None, "steps_per_second": 2e6}
    summary |= {"episode_return": {"value": 475.0}}
    monkeypatch.setattr(whole, "read_checked_json", lambda path: dict(summary))
    done = subprocess.CompletedProcess([], 0, "no table", "")
    monkeypatch.setattr(whole.subprocess, "run", lambda *args, **how: done)
    found = whole.train(module("stage").Context(True, tmp_path, None, 0.0), "typed")
    assert found["summary"] == summary
    assert "import + compile + run + evaluate ? + 1.0 + 2.0 + 3.0" in found["line"]


def test_a_short_visit_leaves_stages_out_and_says_so(tmp_path):
    # Eight seconds are kept for the end, and no stage begins with less than five.
    first, said = visit(tmp_path, "--minutes", "0.32", "--only", "2", "6", STAND_IN_SECONDS="3.5")
    assert "6 last: left out, no time is left" in said
    assert first["stages"]["last"]["status"] == "time ran out"
    assert re.search(r"2 fine: at most \d+ s, shortened", said)
    second, _ = visit(tmp_path, "--only", "2", "6")
    assert outcome(second)["last"] == ("done", {"one": {"line": "fine"}})


def test_a_part_that_would_take_too_long_is_left_for_another_call(tmp_path):
    record, _ = visit(tmp_path, "--only", "2", STAND_IN_ESTIMATE="30")
    assert outcome(record)["fine"] == ("time ran out", {})
    record, _ = visit(tmp_path, "--only", "2")
    assert outcome(record)["fine"][0] == "done"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--minutes", "0"], "--minutes 0 must be a number above 0"),
        (["--minutes", "nan"], "--minutes nan must be a number above 0"),
        (["--only", "11"], "--only 11: the stages are 1 to 6"),
        (["--site", "nowhere"], "nowhere/common has no wheels"),
    ],
)
def test_bad_options_are_a_line(tmp_path, args, said):
    process = begin(tmp_path, *args)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert said in printed
    assert "Traceback" not in printed


def test_kernels_are_those_of_the_streams_of_a_gpu():
    speed = module("speed")

    class Host(speed.StandInPlane):
        name = "/host:CPU"

    found = speed.kernels([Host(), speed.StandInPlane(), speed.StandInPlane()])
    assert found["launches"] == 4
    assert found["kernel_seconds"] == pytest.approx(8e-6)
    assert found["top"] == [["fusion", 0.75], ["gemm", 0.25]]
    with pytest.raises(ValueError, match="no kernels of a GPU"):
        speed.kernels([Host()])


def test_a_point_says_what_is_planned_and_what_is_in_use():
    speed = module("speed")
    point = Point(
        "vpg",
        4,
        64,
        lower_seconds=1.0,
        compile_seconds=2.0,
        steps_per_second=[2e6, 2e6],
        floor_steps_per_second=[4e6, 4e6],
        device_bytes=10**9,
        peak_device_bytes=11 * 10**8,
        solved_seconds=[1.5, None],
    )
    line = speed.told(point)["line"]
    assert line == (
        "2.00 [2.00, 2.00] M steps/s, 50% of the floor, 1.1 GB in use as the device reports it, "
        "1.10 of the plan, solved: in 1 of 2, compiled in 3.0 s"
    )
    assert speed.told(Point("vpg", 4, 64, failed="out of memory"))["failed"] == "out of memory"


def test_a_variant_patches_what_purerl_has_and_adds_its_flags(monkeypatch):
    turns = module("turns")
    monkeypatch.setenv("XLA_FLAGS", "--one")
    for variant in turns.VARIANTS:
        flags = turns.variables(variant, 0.4)["XLA_FLAGS"]
        assert flags == " ".join(filter(None, ("--one", variant.flags)))
        for place in variant.patches:
            name, attribute = place.split(":")
            assert isinstance(getattr(importlib.import_module(name), attribute), int)
    assert {*turns.REHEARSED} <= {variant.name for variant in turns.VARIANTS}
    assert len({variant.name for variant in turns.VARIANTS}) == len(turns.VARIANTS)


@pytest.mark.slow
def test_the_rehearsal(tmp_path):
    """All of it, offline, with every branch that only a GPU takes."""
    dead = "http://127.0.0.1:9"
    offline = {"http_proxy": dead, "https_proxy": dead, "PIP_NO_INDEX": "1"}
    done = subprocess.run(
        [*VISIT, "--rehearse", "--minutes", "20", "--output", str(tmp_path)],
        env=variables(**offline),
        capture_output=True,
        text=True,
        timeout=1300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = record_of(tmp_path)
    stages = module("stages").STAGES
    assert list(record["stages"]) == [stage.name for stage in stages]
    for name, stage in record["stages"].items():
        assert stage["status"] == "done", (name, stage)
        for part, found in stage["parts"].items():
            assert "failed" not in found, (name, part, found)
    parts = {name: stage["parts"] for name, stage in record["stages"].items()}
    assert "--site" in parts["rejax"]["256 seeds"]["skipped"]
    for name in ("resumed with the flags", "a NaN seed frozen"):
        assert parts["proofs"][name]["holds"], parts["proofs"][name]
    assert parts["throughput"]["out of memory"]["line"].startswith("out of memory: it needs")
    assert "in use as the device reports it" in parts["throughput"]["vpg, 256 seeds"]["line"]
    assert "most time: fusion 75%" in parts["where the time goes"]["kernels of vpg"]["line"]
    variants = parts["one thing set otherwise"]
    assert len(variants) == len(module("turns").VARIANTS)
    assert sum("parsed" in name for name in variants) == len(variants) - 3
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".json", ".png"}
