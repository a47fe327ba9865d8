"""A visit keeps what its stages find, whatever some of them do, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT

VISIT = [sys.executable, str(ROOT / "benchmarks/visit.py")]


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
    # Five seconds are kept for the end, and no stage begins with less than five.
    first, said = visit(tmp_path, "--minutes", "0.17", "--only", "2", "6", STAND_IN_SECONDS="1.2")
    assert "6 last: left out, no time is left" in said
    assert first["stages"]["last"]["status"] == "time ran out"
    assert "2 fine: at most 5 s, shortened" in said
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
