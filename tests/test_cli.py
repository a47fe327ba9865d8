import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ["--seeds", "3", "--total-steps", "128", "--num-envs", "4", "--rollout-length", "16"]


def purerl(*args, cwd, timeout=180):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "purerl", *args],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_train_shows_the_result_and_leaves_a_run_directory(tmp_path):
    done = purerl("train", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for what in ("CartPole-v1 · vpg · 3 seeds", "seeds at 475 or more", "0 of 3", "import + comp"):
        assert what in done.stdout
    written = {path.name for path in (tmp_path / "runs/CartPole-v1-vpg").iterdir()}
    assert written == {"config.json", "metrics.npz", "summary.json", "learning_curve.png"}


def test_train_takes_an_environment_by_import_path(tmp_path):
    source = (ROOT / "tests/probes.py").read_text()
    (tmp_path / "mine.py").write_text(source.replace("limit: bool = False", "limit: bool = True"))
    done = purerl("train", "--env", "mine:Probe", "--hidden", "8", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Probe · vpg · 3 seeds" in done.stdout


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--env", "CartPol-v1"], "did you mean CartPole-v1"),
        (["--env", "nowhere:Env"], "cannot be imported"),
        (["--env", "Pendulum-v1"], "discrete actions"),
        (["--discount", "1.5"], "discount = 1.5 must be between 0 and 1"),
        (["--num-envs", "0"], "num_envs = 0 must be a whole number of at least 1"),
        (["--total-steps", "4096", "--log-every", "4"], "num_updates = 2 is not divisible"),
        (["--seeds", "0"], "at least one seed"),
        (["--directory", "/dev/null/run"], "cannot be written"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(args, line, tmp_path):
    done = purerl("train", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.startswith("purerl: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_unknown_option_exits_with_2(tmp_path):
    assert purerl("train", "--no-such-option", cwd=tmp_path).returncode == 2


def test_short_reinforce_rollout_is_warned_of(tmp_path):
    done = purerl("train", "--algo", "reinforce", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "purerl: warning: rollout_length = 16 is shorter" in done.stderr


def test_envs_lists_what_trains(tmp_path):
    done = purerl("envs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "reinforce, vpg" in lines["CartPole-v1"]
    assert "vpg" not in lines["Pendulum-v1"]
    assert "download" in lines["MNISTBandit-bsuite"]
    assert sum("vpg" in line for line in lines.values()) >= 10
