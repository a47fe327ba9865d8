"""Whatever happens to one file of a run, a command gives what it gave, or says a line."""

import json
import shutil
import time

import numpy as np
import pytest
from directories import EVERY, contents, train_and_stop
from finished import train

from purerl.experiment.store import files
from purerl.experiment.store.identity import Identity

PATIENCE = 10  # seconds
HOW = ("removed", "emptied", "cut", "a link to it", "a link to another", "another run's")


def damage(path, how, outside, theirs):
    """Do something to a file; what links lead to is put outside, `theirs` is another run's."""
    data = path.read_bytes()
    path.unlink()
    if how == "emptied":
        path.touch()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "another run's":
        shutil.copyfile(theirs, path)
    elif how.startswith("a link"):
        outside.mkdir()
        kept = outside / "kept"
        kept.write_bytes(data if how == "a link to it" else b"somebody's")
        path.symlink_to(kept)


def commands(run, out):
    """The commands on a run, and what each leaves; None where it writes nothing by itself."""
    return {
        "resume": (("resume", run), lambda: arrays(run / "metrics.npz")),
        "evaluate": (
            ("evaluate", run, "--episodes", 2, "--output", out / "evaluation.json"),
            lambda: without_ids(json.loads((out / "evaluation.json").read_text())),
        ),
        "compare": (
            ("export", run, "--scores", out / "scores.npz", "--metrics", out / "table.csv"),
            lambda: arrays(out / "scores.npz") | {"table": table(out / "table.csv")},
        ),
        "policy": (
            ("export", run, "--seed", 1, "--output", out / "policy.npz"),
            lambda: arrays(out / "policy.npz"),
        ),
    }


def arrays(path):
    """The arrays in a file, without those that say whose it is."""
    whose = ("purerl", "header", "runs")
    found = files.read_arrays(path)
    return {name: array.tobytes() for name, array in found.items() if name not in whose}


def table(path):
    """The rows of a table without its first column, which is the run."""
    return [row.partition(",")[2] for row in path.read_text().splitlines()]


def without_ids(content):
    return {key: value for key, value in content.items() if key not in Identity._fields}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and one that died after update 4 of 6."""
    home = tmp_path_factory.mktemp("runs")
    train(home / "finished", **EVERY)
    return {
        "finished": home / "finished",
        "unfinished": train_and_stop(home / "unfinished"),
        "before": train_and_stop(home / "before", updates=2),
    }


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The same of another root, with files of the same names."""
    home = tmp_path_factory.mktemp("others")
    train(home / "finished", **EVERY, root=1)
    return {
        "finished": home / "finished",
        "unfinished": train_and_stop(home / "unfinished", root=1),
    }


@pytest.fixture
def expected(runs, tmp_path, call):
    """What the commands give on runs that nothing has happened to, at any update."""
    found = {}
    for state, run in runs.items():
        out = tmp_path / f"expected-{state}"
        copy = shutil.copytree(run, out / "run")
        for name, (args, result) in commands(copy, out).items():
            if name != "compare" or state == "finished":
                assert call(*args)[0] == 0
                found.setdefault(name, []).append(result())
                shutil.rmtree(copy)
                shutil.copytree(run, copy)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_a_run_with_a_damaged_file_gives_the_same_or_a_line(
    state, runs, others, expected, tmp_path, call, capsys
):
    names = [name for name in contents(runs[state]) if not name.endswith(".png")]
    asked = [command for command in expected if state == "finished" or command != "evaluate"]
    outcomes = {"the same": 0, "a line": 0}
    for number, (name, how, command) in enumerate(
        (name, how, command) for name in names for how in HOW for command in asked
    ):
        home = tmp_path / str(number)
        run = shutil.copytree(runs[state], home / "run")
        damage(run / name, how, home / "outside", others[state] / name)
        outside = contents(home / "outside")
        args, result = commands(run, home)[command]
        begin = time.monotonic()
        code, _, err = call(*args)
        case = (name, how, command, code, err)
        assert time.monotonic() - begin < PATIENCE, case
        assert contents(home / "outside") == outside, case
        if code == 0:
            assert result() in expected[command], case
        else:
            lines = [row for row in err.splitlines() if not row.startswith("purerl: warning: ")]
            assert code in (1, 2), case
            assert len(lines) == 1, case
            assert lines[0].startswith("purerl: "), case
        outcomes["the same" if code == 0 else "a line"] += 1
        shutil.rmtree(home)
    count = sum(outcomes.values())
    with capsys.disabled():
        print(f"\n{state}: {count} triples of a file, a damage and a command: {outcomes}")
    assert count >= 100
    assert np.all(list(outcomes.values()))
