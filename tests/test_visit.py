"""A visit keeps what its stages find, whatever some of them do, and goes on where it was."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT

from purerl.measuring.points import Point

VISIT = [sys.executable, str(ROOT / "benchmarks/visit.py")]


def module(name):
    """A module of the visit, as its script finds it."""
    if str(ROOT / "benchmarks") not in sys.path:
        sys.path.append(str(ROOT / "benchmarks"))
    return importlib.import_module(f"visiting.{name}")


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
    """What each part came to, and each stage, without their times."""
    return {
        name: (
            stage["status"],
            {
                part: {key: value for key, value in found.items() if key != "seconds"}
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


@pytest.mark.parametrize("after", [0.4, 1.6])
def test_a_visit_that_is_killed_ends_as_one_that_was_not(whole, tmp_path, after):
    with begin(tmp_path, STAND_IN_SECONDS="1") as process:
        for line in process.stdout or ():
            if line.startswith("2 fine"):
                break
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
    time.sleep(1.5)  # its stage's process notices
    record, _ = visit(tmp_path)
    assert outcome(record) == outcome(whole[0])


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
        (["--minutes", "0"], "--minutes 0 must be more than 0"),
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
    assert speed.kernels([])["launches"] == 0


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
        "2.00 [2.00, 2.00] M steps/s, 50% of the floor, 1100 MB in use, 1.10 of the plan, "
        "solved after 1.50 [1.50, 1.50] s, compiled in 3.0 s"
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
    assert "MB in use" in parts["throughput"]["vpg, 256 seeds"]["line"]
    assert "most time: fusion 75%" in parts["where the time goes"]["kernels of vpg"]["line"]
    variants = parts["one thing set otherwise"]
    assert sum("parsed" in name for name in variants) == len(module("turns").VARIANTS)
    assert len(variants) == len(module("turns").VARIANTS) + 3
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".json", ".png"}
