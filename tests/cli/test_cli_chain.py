"""The options of a run that survives, one after another as a user gives them."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from commands import ROOT, environment

from purerl.config.presets import preset
from purerl.experiment import programs
from purerl.seeds import seed_keys

FRAIL = """

@dataclasses.dataclass(frozen=True)
class Frail(Probe):
    limit: bool = True

    def reset(self, key, params):
        obs, state = super().reset(key, params)
        return jnp.where(jax.random.uniform(key) > 0.9998, jnp.nan, obs), state
"""
SIZES: Any = {"num_envs": 4, "rollout_length": 16, "total_steps": 64 * 40, "hidden": (8,)}
SEEDS, CHUNK = 6, 2


def memory_of(seeds, env):
    """Bytes that so many seeds at once need on a device."""
    how: Any = {"chunk_updates": CHUNK, "episodes": 4, "seed_batch": seeds}
    return programs.compile_programs(
        seed_keys(0, SEEDS), preset(env, "vpg", **SIZES), None, **how
    ).memory


@pytest.mark.slow
@pytest.mark.as_users
def test_batches_failures_logs_and_checkpoints_as_a_user_meets_them(tmp_path, monkeypatch):
    source = (ROOT / "tests/support/probes.py").read_text() + FRAIL
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    limit = (memory_of(2, "mine:Frail") + memory_of(4, "mine:Frail")) // 2

    usual = {"WANDB_MODE": "offline", "COLUMNS": "160", "PYTHONWARNINGS": "default"}

    def call(*args):
        return subprocess.run(
            [sys.executable, "-m", "purerl", *map(str, args)],
            cwd=tmp_path,
            env=environment(tmp_path / "cache") | usual,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def lines():
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    def checkpoints():
        return sorted(int(name) for name in os.listdir(run / "checkpoints") if name.isdigit())

    run = tmp_path / "run"
    sizes = ("--num-envs", 4, "--rollout-length", 16, "--total-steps", 64 * 40, "--hidden", 8)
    train = ("train", "--env", "mine:Frail", *sizes, "--seeds", SEEDS, "--directory", "run")
    train = (*train, "--updates-per-chunk", CHUNK, "--evaluation-episodes", 4)
    logs = ("--log", "wandb", "jsonl", "--log-seeds", "--checkpoint-every", CHUNK)

    # More seeds at once than the memory holds are refused, and the directory is free again.
    done = call(*train, "--memory-limit", f"{limit}B", "--seed-batch", SEEDS)
    assert done.returncode == 2, done.stderr
    assert f"--seed-batch = {SEEDS} needs" in done.stderr
    assert "use 2 or fewer" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (run / "config.json").exists()

    # Without that, they are trained in batches; the first seed that fails ends the run.
    keep = ("--stop-on-nan", "--keep-checkpoints", 3)
    done = call(*train, "--memory-limit", f"{limit}B", *keep, *logs)
    assert done.returncode == 1, done.stderr
    assert "3 batches of 2" in done.stderr
    assert json.loads((run / "config.json").read_text())["seed_batch"] == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("purerl: ")]
    stopped = checkpoints()[-1]
    assert f"stopped at update {stopped} of 40: seeds that stopped being finite: " in line
    assert "purerl resume run" in line
    assert 6 <= stopped < 40
    assert checkpoints() == [stopped - 2 * CHUNK, stopped - CHUNK, stopped]
    assert len(lines()) == stopped
    assert {f"episode_return/seed_{seed}" for seed in range(SEEDS)} <= lines()[0].keys()

    # Another size of the batches is another program.
    go_on = ("resume", "run", "--env", "mine:Frail", "--seed-batch", 4)
    done = call(*go_on)
    assert done.returncode == 2, done.stderr
    assert "seed_batch: 2, now 4. The result could change; to go on all the same, use --force" in (
        done.stderr
    )
    assert checkpoints()[-1] == stopped

    # Forced, and given its loggers again, it goes on to the end without the seed that has failed.
    done = call(*go_on, "--force", "--keep-checkpoints", 2, *logs[:4])
    assert done.returncode == 0, done.stderr
    assert "warning: not the same as before: seed_batch: 2, now 4" in done.stderr
    assert "2 batches of 4" in done.stderr
    assert len(checkpoints()) == 2
    assert checkpoints()[-1] == 40
    assert [each["updates"] for each in lines()] == list(range(1, 41))
    summary = json.loads((run / "summary.json").read_text())
    assert 0 < len(summary["failed_seeds"]) < SEEDS
    assert lines()[-1]["failed_seeds"] == len(summary["failed_seeds"])
    assert any(
        "went on from update" in row and f"{stopped} of 40" in row
        for row in done.stdout.splitlines()
    )
    (row,) = [row for row in done.stdout.splitlines() if "stopped being finite" in row]
    assert str(summary["failed_seeds"][0]) in row
    known = json.loads((run / "wandb.json").read_text())["wandb"]
    written = [path.name for path in run.glob("wandb/offline-run-*/run-*.wandb")]
    assert written == [f"run-{known}.wandb"] * 2
