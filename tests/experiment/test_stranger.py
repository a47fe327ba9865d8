"""A stranger's run is data: each command on it, watched by an audit hook."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from commands import ROOT

from purerl.experiment.store import files
from purerl.experiment.store.files import read_checked_json, write_checked_json

MODULES = (
    *("matplotlib", "yaml", "jax", "numpy", "tyro", "rich", "gymnax", "six", "scipy"),
    *("tensorboardX", "wandb", "pygame", "gymnasium", "jax_plugins", "PIL", "commands", "pandas"),
    *("sitecustomize", "usercustomize", "stranger"),
)


@pytest.fixture
def world(finished, tmp_path):
    """A stranger's run, what lies beside it, and what a process may write besides."""
    run, precious = tmp_path / "run", tmp_path / "precious"
    shutil.copytree(finished, run)
    for name in ("caches", "tmp", "precious", "home", "out"):
        (tmp_path / name).mkdir()
    for name in ("a", "b", "c", "d"):
        (precious / name).write_text("keep")
    for name in MODULES:
        (run / f"{name}.py").write_text(f"open({str(precious / 'a')!r}, 'w').write('{name}')\n")
    header = read_checked_json(run / files.HEADER)
    header["hooks"] = [
        {"logger": "jsonl", "arguments": {"path": str(precious / "a"), "per_seed": False}},
        {"logger": "jsonl", "arguments": {"path": str(run / "out/b"), "per_seed": False}},
        {"logger": "jsonl", "arguments": {"path": "../precious/c"}},
        {"logger": "tensorboard", "arguments": {"directory": str(precious)}},
        {"logger": "wandb", "arguments": {"base_url": "http://127.0.0.1:9", "mode": "online"}},
        {"logger": "stranger:Logger", "arguments": {}},
        {"function": "stranger:function"},
        {"logger": ["jsonl"], "arguments": 3},
        7,
    ]
    write_checked_json(run / files.HEADER, header)
    for link, target in {
        "metrics.jsonl": precious / "b",
        "wandb.json": precious / "b",
        "out": precious,
        "tensorboard": precious,
        "wandb": precious,
    }.items():
        (run / link).symlink_to(target)
    return tmp_path


def watched(world, *args, cwd, module=("-m", "purerl")):
    """Run a command in a directory: its result, and its deeds as pairs of kind and object."""
    log = world / "log"
    log.write_bytes(b"")
    inherited = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    environment = inherited | {
        "PYTHONPATH": os.pathsep.join((str(ROOT / "tests/support/audit"), str(ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AUDIT_LOG": str(log),
        "TMPDIR": str(world / "tmp"),
        "HOME": str(world / "home"),
        "WANDB_API_KEY": "0" * 40,
        "XDG_CACHE_HOME": str(world / "caches"),
        "MPLCONFIGDIR": str(world / "caches"),
    }
    done = subprocess.run(
        [sys.executable, *module, *args],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    return done, [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def require_harmless(world, deeds):
    """Nothing of the run was executed, nothing was started or sent, nothing else written."""
    may_write = [
        *(world / name for name in ("run", "out", "tmp", "caches")),
        *(os.environ["JAX_COMPILATION_CACHE_DIR"], "/dev/null"),
    ]
    assert any(kind == "runs" for kind, _ in deeds)  # the hook has heard something
    for kind, what in deeds:
        if kind == "runs":
            assert not what.startswith(f"{world / 'run'}/"), what
        elif kind == "writes":
            real = os.path.realpath(what)
            assert any(real.startswith(os.path.realpath(place)) for place in may_write), what
        elif (kind, what) != ("starts", "fc-list"):  # matplotlib asks it once for the fonts
            pytest.fail(f"{kind} {what}")
    for path in (world / "precious").iterdir():
        assert path.read_text() == "keep"
    assert sorted(path.name for path in (world / "precious").iterdir()) == ["a", "b", "c", "d"]


COMMANDS = {
    "evaluate": ("evaluate", ".", "--episodes", "4"),
    "compare": ("compare", ".", "--output", "../out/figure.png"),
    "export the metrics": ("export", ".", "--metrics", "../out/table.csv"),
    "export the scores": ("export", ".", "--scores", "../out/scores.npz"),
    "export a policy": ("export", ".", "--seed", "1"),
    "render": ("render", ".", "--seed", "1", "--max-steps", "5"),
    "resume": ("resume", "."),
    "show": ("show", "--like", ".", "--toml", "../out/agent.toml"),
    "train": ("train", "--like", ".", "--seeds", "2", "--directory", "../out/run"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_a_command_on_a_strangers_run_obeys_nothing_in_it(command, world):
    done, deeds = watched(world, *command, cwd=world / "run")
    assert done.returncode == 0, done.stderr
    require_harmless(world, deeds)


@pytest.fixture
def unfinished(world):
    """A stranger's run whose hooks will be told of all again."""
    for name in (files.SUMMARY, files.METRICS):
        (world / "run" / name).unlink()
    return world


@pytest.mark.slow
def test_a_strangers_run_that_goes_on_obeys_nothing_in_it(unfinished):
    done, deeds = watched(unfinished, "resume", ".", cwd=unfinished / "run")
    assert done.returncode == 0, done.stderr
    require_harmless(unfinished, deeds)
    for name in ("jsonl", "tensorboard"):
        assert f"the logger {name} wrote to" in done.stderr
    assert "the logger wandb sends what it gets" in done.stderr


@pytest.mark.slow
def test_a_link_where_a_logger_would_write_is_refused(unfinished):
    loggers = ("--log", "jsonl", "tensorboard")
    done, deeds = watched(unfinished, "resume", ".", *loggers, cwd=unfinished / "run")
    assert done.returncode == 2
    assert "has 'metrics.jsonl', which is a link" in done.stderr
    require_harmless(unfinished, deeds)


@pytest.mark.slow
def test_a_policy_of_a_strangers_run_is_loaded_and_nothing_else(world):
    code = "import purerl; print(purerl.load_policy('run', 1).network is not None)"
    done, deeds = watched(world, cwd=world, module=("-P", "-c", code))
    assert done.returncode == 0, done.stderr
    require_harmless(world, deeds)


@pytest.mark.slow
def test_the_watch_sees_what_it_is_to_see(world):
    code = "import socket; open('precious/e', 'w'); socket.socket().connect_ex(('127.0.0.1', 9))"
    done, deeds = watched(world, cwd=world, module=("-P", "-c", code))
    assert done.returncode == 0, done.stderr
    assert ("writes", str(world / "precious/e")) in deeds
    assert "sends" in {kind for kind, _ in deeds}
    done, deeds = watched(world, cwd=world / "run", module=("-c", "import stranger"))
    assert ("runs", str(world / "run/stranger.py")) in deeds
