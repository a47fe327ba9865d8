"""What ends a sweep early: signals, a full disk, and what is refused before it begins."""

import json
import signal
import time
from typing import Any

import numpy as np
import pytest
from commands import command
from probes import Probe
from small import EPISODES, OPTIONS, SIZES

import purerl
from purerl.experiment import session
from purerl.experiment.hosts.stopping import RunError, Signals, Stopped
from purerl.experiment.store import files

HOW: Any = {"updates_per_chunk": 2, "evaluation_episodes": EPISODES, "progress": False}


def small():  # of the sizes in `test_sweeps`
    config = purerl.ppo(Probe("match", length=4), **(SIZES | {"total_steps": 4 * 8 * 6}))
    return purerl.sweep(config, policy_learning_rate=[1e-5, 3e-2])


class Told(Signals):
    """A stand-in for `Signals`: one that comes after `received` was read so many times."""

    def __init__(self, number, reads):
        self.number, self.reads = number, reads

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def received(self):
        self.reads -= 1
        return self.number if self.reads < 0 else None


def test_a_sweep_that_a_signal_stops_leaves_what_it_has_come_to(tmp_path, monkeypatch):
    sweep = small()
    monkeypatch.setattr(session, "Signals", lambda: Told(15, reads=2))  # once while it compiles
    with pytest.raises(Stopped, match=r"stopped at update 4 of 6; .*sweep\.json.*anew") as stopped:
        purerl.run_sweep(sweep, 2, tmp_path, **HOW)
    assert stopped.value.signal_number == 15
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert written["updates"] == 4
    assert written["env_steps"] == 4 * 8 * 4
    assert len(written["ranking"]) == 2
    with np.load(tmp_path / "metrics.npz") as saved:
        assert saved["entropy"].shape == (2, 2, 4)
        assert np.all(np.isfinite(saved["entropy"]))
    assert (tmp_path / "sweep.png").exists()
    monkeypatch.undo()
    again = purerl.run_sweep(sweep, 2, tmp_path, **HOW)
    assert again.updates == 6


def test_a_sweep_that_is_stopped_while_it_compiles_leaves_nothing(tmp_path, monkeypatch):
    sweep = small()
    monkeypatch.setattr(session, "Signals", lambda: Told(2, reads=0))
    with pytest.raises(Stopped, match="stopped before training") as stopped:
        purerl.run_sweep(sweep, 2, tmp_path, **HOW)
    assert stopped.value.signal_number == 2
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_full_disk_ends_a_sweep_with_a_line(tmp_path, monkeypatch):
    def full(path, arrays):
        raise OSError(28, "No space left on device", str(path))

    sweep = small()
    monkeypatch.setattr(files, "write_arrays", full)
    with pytest.raises(RunError, match=r"could not be written: the disk is full") as error:
        purerl.run_sweep(sweep, 2, tmp_path, **HOW)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"seed_batch": 0}, "seed_batch = 0 must be a whole number of at least 1"),
        ({"memory_limit": -1}, "memory_limit = -1 must be"),
        ({"root": -1}, "root = -1 must be an int from 0"),
        ({"evaluation_episodes": -1}, "evaluation_episodes = -1 must be"),
    ],
)
def test_bad_counts_of_a_sweep_are_refused_in_one_line(how, line, tmp_path):
    sweep = small()
    with pytest.raises(ValueError, match=line):
        purerl.run_sweep(sweep, 2, tmp_path / "sweep", **(HOW | how))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_one_line_and_its_exit_code(sent, code, tmp_path):
    sizes = ("--num-envs", "4", "--rollout-length", "16", "--hidden", "8", "--seeds", "2")
    how = ("--total-steps", "6400000", "--updates-per-chunk", "200", "--directory", "sweep")
    args = (*sizes, *how, "--values", "discount=0.9,0.99")
    process = command("sweep", *args, cwd=tmp_path, cache=tmp_path / "cache")
    while not (tmp_path / "sweep/config.json").exists():  # it is written when it has compiled
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err.decode()
    updates = json.loads((tmp_path / "sweep/sweep.json").read_text())["updates"]
    assert 0 < updates < 100_000
    (line,) = [line for line in err.decode().splitlines() if line.startswith("purerl: ")]
    assert line.startswith(f"purerl: stopped at update {updates} of 100000; ")
    assert "Traceback" not in err.decode()


def test_a_winner_is_confirmed_by_seeds_that_have_not_chosen_it(tmp_path, call):
    """By default a sweep has other seeds than a run, and says so under its ranking."""
    config = purerl.vpg("CartPole-v1", **SIZES)
    how: Any = {"evaluation_episodes": EPISODES, "progress": False}
    swept = purerl.run_sweep(purerl.sweep(config, discount=[0.9, 0.99]), 2, tmp_path / "a", **how)
    trained = purerl.run(config, 2, tmp_path / "b", **how)
    assert swept.root != 0
    winner = swept.metrics.policy_loss[1]  # discount = 0.99, as that of the config
    assert np.all(winner[:, 0] != trained.metrics.policy_loss[:, 0])
    same = purerl.run(config, 2, tmp_path / "c", root=swept.root, **how)
    np.testing.assert_allclose(winner[:, 0], same.metrics.policy_loss[:, 0], rtol=1e-4)
    lines = {}
    for root in ("0", "5"):
        words = ["sweep", *OPTIONS, "--root", root, "--values", "discount=0.9,0.99"]
        code, out, err = call(*words, "--directory", str(tmp_path / root))
        assert code == 0, err
        (lines[root],) = [line for line in out.splitlines() if "confirm it" in line]
    assert "by 4 seeds each (root 5)" in lines["5"]
    assert lines["5"].endswith("purerl train, whose root is 0")
    assert lines["0"].endswith("purerl train --root 1")
