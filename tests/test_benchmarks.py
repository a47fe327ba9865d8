"""What the benchmarks compute is what they say: ratios, FLOPs, floors, when a run is solved."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from finished import train

import purerl
from purerl.cli.tables import show_result
from purerl.measuring.points import Point

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
HIDDEN = (32, 32)


def module(name):
    """A script of the benchmarks, which import each other as scripts do."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)


def test_a_table_lines_up():
    lines = module("text_tables").show_table(["", "a"], [["long name", 1], ["x", 100]]).splitlines()
    assert lines == ["             a", "---------  ---", "long name    1", "x          100"]


def test_floors_and_shares_of_rates_by_hand():
    rates = {
        "env steps alone, as mapped": [40.0],
        "env steps alone, side by side": [50.0],
        "env and policy, as mapped": [20.0],
        "trained": [5.0],
        "rollout": [10.0],
        "2x2x2": [100.0],
        "4x4x4": [600.0],
    }
    per_step = {"rollout": 10, "values": 20, "policy update": 30, "baseline update": 0}
    found = module("floor").relate(rates, ["2x2x2", "4x4x4"], per_step)
    assert found["best"]["matrix product"] == "4x4x4"
    assert found["floors"]["env steps alone"]["median"] == 50
    assert found["floors"]["arithmetic floor"]["median"] == 10  # 600 / 60
    # A twentieth of a second for the steps, 50 / 600 for what is learnt of one.
    assert found["floors"]["joint floor"]["median"] == pytest.approx(1 / (1 / 20 + 50 / 600))
    assert found["shares"]["trained / arithmetic floor"]["median"] == 0.5
    assert found["shares"]["rollout / env and policy"]["median"] == 0.5


def test_the_phases_of_a_repeat_are_summed_and_shown_before_the_whole_step():
    phases = module("phases")
    seconds = {
        "rollout": [1.0, 2.0, 3.0],
        "estimate": [1.0, 1.0, 1.0],
        "policy update": [2.0, 2.0, 2.0],
        "whole step": [3.0, 3.0, 3.0],
    }
    assert phases.summed(seconds) == [4.0, 5.0, 6.0]
    lines = phases.table(seconds, 10_000_000).splitlines()
    assert [line.split()[0] for line in lines[2:]] == [
        "rollout",
        "estimate",
        "policy",
        "sum",
        "whole",
    ]
    assert lines[-1].split()[-3:] == ["60", "%", "3.33"]


@pytest.mark.slow
def test_the_lookahead_and_the_share_dropped_are_those_of_the_rule():
    lookahead = module("lookahead")
    sizes = {"num_envs": 2, "rollout_length": 9, "total_steps": 36, "hidden": (4,)}
    # No pole falls within 6 steps.
    short = purerl.make_env("CartPole-v1")[1].replace(max_steps_in_episode=6)
    result = lookahead.measure(purerl.reinforce("CartPole-v1", env_params=short, **sizes), 2)
    assert (result["lookahead"], result["time_limit"]) == (5, 6)
    assert result["discounted"] == pytest.approx(0.99**5)
    # Steps 0 to 4 look ahead far enough, and step 5 is its episode's last; then another begins.
    assert result["dropped_before"] == pytest.approx(3 / 9)
    assert (
        lookahead.table({"CartPole-v1": result})
        .splitlines()[-1]
        .startswith("| CartPole-v1 | 9 × 2 | 2 | 5 | 6 | 0.95 | 33% | ")
    )


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "reinforce"])
def test_every_algorithm_is_taken_apart(algo):
    phases = module("phases")
    sizes = {"num_envs": 4, "rollout_length": 8, "total_steps": 64, "hidden": (8,)}
    config = purerl.preset("CartPole-v1", algo, **sizes)
    made = phases.programs(purerl.seed_keys(0, 2), config, 2)
    expected = [name for name in phases.PHASES if algo == "ppo" or name != "baseline update"]
    assert list(made) == [*expected, "whole step", "step in a chunk"]


def test_seeds_are_cut_evenly_over_the_devices_of_a_peer():
    contenders = module("contenders")
    assert [contenders.even_devices(6, cores) for cores in (1, 4, 16)] == [1, 3, 6]
    assert contenders.even_devices(7, 4) == 1


def test_a_setting_is_read_and_gives_every_trainer_the_same_steps():
    peers = module("peers")
    setting = peers.Setting.parse("4x128x16")
    assert (setting, str(setting)) == (peers.Setting(4, 128, 16), "4x128x16")
    assert setting.work("purerl") == setting.work("rejax") == setting.work("rejax-pmap")
    assert module("contenders").env_steps(setting.work("rejax")) * 16 == peers.USUAL_STEPS
    assert setting.work("sb3")["seeds"] == 1
    with pytest.raises(argparse.ArgumentTypeError, match="'4x128' is not"):
        peers.Setting.parse("4x128")


def test_only_purerl_and_pmap_get_a_device_for_each_core(tmp_path):
    peers = module("peers")
    setting = peers.Setting(4, 128, 2)
    devices = {
        name: int(peers.environment(name, setting, tmp_path)["JAX_NUM_CPU_DEVICES"])
        for name in ("purerl", "purerl-one-device", "rejax", "rejax-pmap")
    }
    assert devices["purerl-one-device"] == devices["rejax"] == 1
    assert devices["rejax-pmap"] == module("contenders").even_devices(2, devices["purerl"])
    assert peers.environment("purerl", setting, tmp_path)["PYTHONPATH"] == str(tmp_path)


class Trainer:
    """A worker of `peers.py` without a process, which dies in its last run where one is named."""

    def __init__(self, label, turns, last_run=None):
        self.label, self.turns, self.last_run = label, turns, last_run
        self.failed, self.repeats, self.runs = None, [], 0

    def wait(self):
        pass

    def run(self):
        self.turns.append(self.label)
        self.runs += 1
        if self.runs == self.last_run:
            raise module("peers").WorkerEnded(f"{self.label} ended")
        return {"seconds": 1.0}


def test_trainers_take_turns_in_an_order_that_rotates():
    turns = []
    workers = [Trainer(label, turns) for label in "abc"]
    assert module("peers").compare(workers, 3) == workers
    assert "".join(turns) == "abc" + "abc" + "bca" + "cab"
    assert [len(worker.repeats) for worker in workers] == [3, 3, 3]


def test_the_others_go_on_without_a_trainer_that_died():
    turns = []
    workers = [Trainer("a", turns), Trainer("b", turns, last_run=2), Trainer("c", turns)]
    assert module("peers").compare(workers, 2) == [workers[0], workers[2]]
    assert workers[1].failed == "b ended"
    assert [len(worker.repeats) for worker in workers] == [2, 0, 2]


def test_memory_growth_is_of_one_update_and_seed():
    sizes: Any = {"algo": "vpg", "seeds": 4, "num_envs": 2, "devices": 2}
    points = [
        Point(**sizes, updates=8, device_bytes=1000, peak_process_bytes=5_000_000),
        Point(**sizes, updates=28, device_bytes=2760, peak_process_bytes=6_000_000),
    ]
    assert module("throughput").growth(points) == [
        ["8 -> 28 updates", "44.0 B", "12.5 kB", "+1.0 MB"]
    ]


@pytest.fixture
def throughput(monkeypatch):
    """The script, on a machine that needs no asking."""
    made = module("throughput")
    monkeypatch.setattr(made, "check", lambda requests: {"machine": {"platform": "cpu"}})
    monkeypatch.setattr(made, "bench", lambda *args, **how: pytest.fail("it was begun"))
    return made


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lengths", "8", "8"], "--lengths [8, 8] repeat"),
        (["--output", "/dev/null/here.json"], "/dev/null"),
        (["--repeats", "0"], "'0' must be a whole number of at least 1"),
        (["--algos", "dqn"], "invalid choice: 'dqn'"),
    ],
)
def test_bad_options_are_a_line_before_anything_is_timed(
    options, said, throughput, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["throughput.py", *options])
    with pytest.raises(SystemExit):
        throughput.main()
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_points_are_written_as_they_are_there(throughput, monkeypatch, tmp_path):
    def bench(*args, progress, **how):
        progress(Point("vpg", 4, 2, failed="out of memory"))
        raise KeyboardInterrupt

    monkeypatch.setattr(throughput, "bench", bench)
    output = tmp_path / "new/throughput.json"
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--output", str(output)])
    with pytest.raises(KeyboardInterrupt):
        throughput.main()
    written = json.loads(output.read_text())
    assert [point["failed"] for point in written["points"]] == ["out of memory"]
    assert written["surroundings"]["platform"] == "cpu"


def test_a_run_is_solved_at_the_first_evaluation_with_enough_seeds():
    startup = module("startup")

    def line(updates, *returns):
        seeds = {f"greedy_return/seed_{i}": value for i, value in enumerate(returns)}
        return json.dumps({"updates": updates, "greedy_return": 500.0, **seeds}) + "\n"

    log = [line(1), line(2, *[475.0] * 18, 20.0, None), line(3, *[500.0] * 19, 20.0)]
    assert startup.first_solved(log)["updates"] == 3
    assert startup.first_solved(log[:2]) is None
    assert startup.first_solved([*log[:2], log[2][:-1]]) is None  # half-written


def test_the_seconds_of_imports_are_those_that_a_command_prints(tmp_path, capsys):
    show_result(train(tmp_path / "run"), import_seconds=1.23)
    startup = module("startup")
    assert startup.import_seconds(capsys.readouterr().out) == 1.2
    with pytest.raises(ValueError, match="no seconds of imports"):
        startup.import_seconds("purerl: stopped")


def test_the_surroundings_name_what_ran():
    surroundings = module("surroundings")
    found = surroundings.surroundings()
    assert found["jax"] == jax.__version__
    assert found["cores"] >= 1
    assert surroundings.revision(Path("/")) is None
