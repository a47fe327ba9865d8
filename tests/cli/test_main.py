"""How the command line ends: its line, its exit code, and which process says it."""

import os
import signal
import subprocess
import sys
import time

import jax
import pytest
from commands import ROOT, command
from small import OPTIONS

import purerl
from purerl.cli import commands
from purerl.cli.main import main
from purerl.experiment.hosts import processes
from purerl.experiment.hosts.processes import mark_raised_by_all
from purerl.experiment.hosts.stopping import LostProcessError, RunError, Stopped

ENDINGS = {
    "bad input": (lambda: ValueError("x = 1 must be 2."), 2, "x = 1 must be 2."),
    "a file": (lambda: OSError(13, "Permission denied", "a.txt"), 2, "a.txt cannot be read or wri"),
    "a run that cannot go on": (lambda: RunError("the disk is full"), 1, "the disk is full"),
    "a lost process": (lambda: LostProcessError("another has died"), 1, "another has died"),
    "too little memory": (lambda: MemoryError("Unable to allocate"), 1, "out of memory: Unable"),
    "a backend": (
        lambda: RuntimeError("Unable to initialize backend 'cuda': no\nmore"),
        *(2, "jax cannot start with JAX_PLATFORMS=cpu: Unable to initialize backend 'cuda'"),
    ),
    "an escape sequence": (lambda: ValueError("a\x1b[1mb"), 2, r"a\x1b[1mb"),
    "a signal": (lambda: Stopped("stopped at update 2", 15), 143, "stopped at update 2"),
}


@pytest.fixture
def end(monkeypatch, capsys):
    """Run a command that raises: its exit code, what is said, and whether the end is at once."""
    at_once = []

    def exits(code):
        at_once.append(code)
        raise SystemExit(code)

    monkeypatch.setattr("purerl.experiment.hosts.startup.use_all_cores", lambda: None)
    monkeypatch.setattr("purerl.experiment.hosts.startup.use_compilation_cache", lambda: None)
    monkeypatch.setattr("warnings.showwarning", None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(os, "_exit", exits)

    def run(error):
        def fail(command, began):
            raise error

        monkeypatch.setattr(commands, "execute", fail)
        with pytest.raises(SystemExit) as ended:
            main(["envs"])
        return ended.value.code, capsys.readouterr().err, bool(at_once)

    return run


@pytest.mark.parametrize(("make", "code", "says"), ENDINGS.values(), ids=list(ENDINGS))
def test_an_error_ends_with_its_line_and_its_code(make, code, says, end):
    assert end(make())[0] == code
    ended, said, at_once = end(make())
    assert (ended, at_once) == (code, False)
    assert said.startswith(f"purerl: {says}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("make", "code", "says"), ENDINGS.values(), ids=list(ENDINGS))
@pytest.mark.parametrize("is_main", [True, False])
@pytest.mark.parametrize("by_all", [True, False])
def test_of_several_processes_one_says_what_all_raise(
    make, code, says, is_main, by_all, end, monkeypatch
):
    monkeypatch.setattr(processes, "is_main_process", lambda: is_main)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    error = mark_raised_by_all(make()) if by_all else make()
    ended, said, at_once = end(error)
    assert ended == code
    assert (says in said) is (is_main or not by_all)
    # The others come to know by that, where they have not raised it too.
    assert at_once is (isinstance(error, RunError) and not by_all)


@pytest.mark.parametrize("error", [ValueError("a\nb"), OSError("of a library"), KeyError("x")])
def test_a_bug_shows_its_traceback(error, end, monkeypatch):
    with pytest.raises(type(error)):
        end(error)


def test_the_version_comes_with_jax_its_backend_and_its_devices(call):
    assert call("--version") == (
        0,
        f"purerl {purerl.__version__}, jax {jax.__version__}, cpu: 2 × cpu\n",
        "",
    )


@pytest.mark.parametrize("name", ["CartPole-v1", "mine:Env"])
@pytest.mark.parametrize(
    "command",
    [
        ("train", "--num-envs", "0"),
        ("show", "--num-envs", "0"),
        ("evaluate", "run"),
        ("resume", "run"),
    ],
)
def test_modules_of_the_current_directory_are_found_last_and_only_if_named(
    name, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit):  # there is no such module, no run, or nothing to train
        main([*command, "--env", name])
    assert (sys.path[-1] == str(tmp_path)) is (":" in name)
    assert sys.path.count(str(tmp_path)) == (":" in name)


def test_an_interrupt_while_modules_are_imported_ends_at_once(end, monkeypatch, capsys):
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("purerl.cli.main._import_commands", interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["envs"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "purerl: stopped at once; what was saved is kept.\n"


def test_importing_the_command_line_imports_nothing_that_takes_long():
    code = "import sys, purerl.cli.main; print({'tyro', 'numpy', 'jax', 'rich'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.6, 1.0])
def test_an_interrupt_in_the_first_second_is_one_line(seconds, tmp_path):
    process = command("envs", cwd=tmp_path, cache=tmp_path / "cache")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert err.decode() in ("", "purerl: stopped at once; what was saved is kept.\n")


@pytest.mark.slow
def test_a_backend_that_cannot_start_is_one_line(tmp_path):
    for platform in ("cuda", "nothing"):
        environment = os.environ | {"JAX_PLATFORMS": platform, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "purerl", "train", *OPTIONS],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("purerl: jax cannot start with JAX_PLATFORMS=")
        assert done.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())


TERMINALS = {
    "not UTF-8": ({"PYTHONIOENCODING": "ascii"}, ""),
    "of the C locale": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ""),
    "full": ({}, ">/dev/full"),
    "full for errors": ({}, "2>/dev/full"),
    "full for both": ({}, ">/dev/full 2>&1"),
    "closed": ({}, "<&- >&- 2>&-"),
    "gone": ({}, "| true"),
    "gone for both": ({}, "2>&1 | true"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "terminal"),
    [
        *((("train",), terminal) for terminal in TERMINALS),
        *((("sweep", "--values", "discount=0.9,0.99"), each) for each in list(TERMINALS)[::4]),
    ],
)
def test_a_run_is_finished_whatever_its_terminal_is(words, terminal, tmp_path):
    variables, redirection = TERMINALS[terminal]
    shell = f'"$0" -m purerl "$@" {redirection}; exit ${{PIPESTATUS[0]}}'
    args = [words[0], *OPTIONS, *words[1:], "--directory", "a [bold] run"]
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable, *args],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    name = "summary.json" if words[0] == "train" else "sweep.json"
    assert (tmp_path / "a [bold] run" / name).exists()
    if not redirection:
        assert b" [bold] run" in done.stdout


NAMELESS = """
import os, pwd, sys

def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

pwd.getpwuid = unknown
del os.environ["HOME"]
from purerl.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_user_without_name_and_home_trains(tmp_path):
    caches = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")
    kept = {name: value for name, value in os.environ.items() if name not in caches}
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS, "train", *OPTIONS, "--directory", "run"],
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": str(ROOT), "HOME": "/"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run/summary.json").exists()
    assert (tmp_path / "run/learning_curve.png").exists()
