"""Several real processes on this machine, which talk over loopback: one run."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from commands import ROOT
from pairs import alone, ended, environment, kill, metrics, started, together, wait_for_checkpoint

from purerl.cli.options import ProcessOptions
from purerl.experiment.hosts import processes
from purerl.experiment.hosts.distributed import initialize
from purerl.experiment.hosts.startup import describe_cpu
from purerl.experiment.hosts.stopping import LostProcessError
from purerl.experiment.store.files import read_checked_json

SIZES = ["--num-envs", "4", "--rollout-length", "8", "--hidden", "8", "--updates-per-chunk", "10"]
PER_UPDATE = 4 * 8
HEARTBEAT = 10


def train(directory, seeds=4, updates=40, checkpoint_every=20):
    """The arguments of a small run."""
    return [
        *("train", "--seeds", str(seeds), "--directory", str(directory), *SIZES),
        *("--total-steps", str(updates * PER_UPDATE), "--checkpoint-every", str(checkpoint_every)),
        *("--evaluation-episodes", "2", "--schedule"),  # of nothing: another budget changes no step
    ]


def assert_same_first_records(directory, expected, records=10):
    """Across program shapes floats start apart by reordering, and trajectories then diverge."""
    found, other = metrics(directory), metrics(expected)
    assert found.keys() == other.keys()
    np.testing.assert_array_equal(found["seed_ids"], other["seed_ids"])
    for name in ("num_episodes", "episode_return", "policy_loss", "value_loss"):
        assert found[name].shape == other[name].shape
        a, b = found[name][:, :records], other[name][:, :records]
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)


def test_one_process_tells_itself():
    assert processes.all_gather({"a": 1}) == [{"a": 1}]
    assert processes.is_main_process()
    assert not processes.is_multi_process()
    assert processes.on_main_process(lambda x: x + 1, 2) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"coordinator": "h:1"}, "coordinator has no effect without --distributed"),
        ({"process_id": 0}, "process-id has no effect without --distributed"),
        (
            {"distributed": True, "num_processes": 2},
            "num_processes is given, and coordinator, process_id is not",
        ),
        (
            {"coordinator": "h:1", "num_processes": 2, "process_id": 2},
            "process_id = 2 must be from",
        ),
        ({"coordinator": "h", "num_processes": 2, "process_id": 1}, "'h' must be HOST:PORT"),
        ({"coordinator": "h:1", "num_processes": 0, "process_id": 0}, "num_processes = 0 must"),
        ({"distributed": True, "heartbeat_timeout": 0}, "heartbeat_timeout = 0 must be at least"),
        ({"distributed": True}, "no cluster's environment was found; give --coordinator HOST:PORT"),
    ],
)
def test_processes_that_cannot_meet_are_refused_in_one_line(options, says, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    if len(options) == 3:
        options |= {"distributed": True}
    with pytest.raises(ValueError, match=says) as refusal:
        initialize(**(ProcessOptions(**options).arguments() or {}))
    assert "\n" not in str(refusal.value)


def test_a_port_that_is_taken_is_refused_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"'{where}' cannot be used: Address already in use"):
            initialize(coordinator=where, num_processes=2, process_id=0)


def test_what_jax_refuses_is_told_in_one_line(monkeypatch):
    def fail(*args, **how):
        raise RuntimeError("the first line.\nthe second")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ValueError, match=r"^coordinator = 'h:1' cannot be used: the first line\.$"):
        initialize(coordinator="h:1", num_processes=2, process_id=1)
    with pytest.raises(ValueError, match=r"processes cannot be joined: the first line\.$"):
        initialize()


def refuse(*args, **how):
    raise ValueError("coordinator_address should be defined.")


ENDS = {
    "killed": ("os.kill(os.getpid(), 9)", True),
    "aborted": ("os.abort()", True),
    "through": ("pass", False),
}


@pytest.mark.parametrize(("end", "is_told"), ENDS.values(), ids=list(ENDS))
def test_a_process_that_dies_has_last_words(end, is_told):
    code = f"""
import os
from purerl.experiment.hosts.processes import message_at_exit
with message_at_exit("it's over: 100%"):
    {end}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ("it's over: 100%\n" in done.stderr) is is_told


@pytest.mark.parametrize(
    "error",
    [
        ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:30369"),
        jax.errors.JaxRuntimeError("INTERNAL: NCCL operation failed: remote process exited"),
    ],
)
def test_an_error_of_a_collective_says_how_to_go_on(error, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    says = r"died; .*: purerl resume runs/a --distributed$"
    with pytest.raises(LostProcessError, match=says), processes.explaining_lost_processes("runs/a"):
        raise error
    with pytest.raises(ValueError, match="num_envs"), processes.explaining_lost_processes("runs/a"):
        raise ValueError("num_envs = 0 must be at least 1.")


@pytest.mark.slow
@pytest.mark.as_users
def test_two_processes_train_what_one_does_and_others_go_on_from_it(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    (code, out, err), (other_code, other_out, other_err) = together(*train(two))
    assert (code, other_code) == (0, 0), err + other_err
    assert "greedy return" in out
    assert "training" in err
    assert other_out.replace("\n", "").startswith("[Gloo]") or not other_out
    assert "training" not in other_err
    done = alone(*train(one))
    assert done.returncode == 0, done.stderr
    assert_same_first_records(two, one)
    longer = ["--total-steps", str(60 * PER_UPDATE)]
    # On as many devices in another number of processes it is said, and --force goes on.
    copy = tmp_path / "copy"
    shutil.copytree(two, copy)
    done = alone("resume", str(two), *longer)
    assert done.returncode == 2
    assert "device.processes: 2, now none" in done.stderr
    done = alone("resume", str(two), *longer, "--force")
    assert done.returncode == 0, done.stderr
    outcomes = together("resume", str(copy), *longer)
    assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes
    assert_same_first_records(copy, two, records=60)
    assert read_checked_json(copy / "summary.json")["resumed_at"] == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout", [["--devices", "1x2"], ["--seed-batch", "2"]], ids=["environments", "batches"]
)
def test_two_processes_share_environments_and_take_seeds_in_batches(layout, tmp_path):
    two, one, longer = tmp_path / "two", tmp_path / "one", ["--total-steps", str(30 * PER_UPDATE)]
    outcomes = together(*train(two, seeds=3, updates=20, checkpoint_every=10), *layout)
    assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes
    done = alone(*train(one, seeds=3, updates=20, checkpoint_every=10))
    assert done.returncode == 0, done.stderr
    assert_same_first_records(two, one)
    outcomes = together("resume", str(two), *longer)
    assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes
    straight = tmp_path / "straight"
    outcomes = together(*train(straight, seeds=3, updates=30, checkpoint_every=10), *layout)
    assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes
    assert_same_first_records(two, straight, records=30)


@pytest.mark.slow
def test_two_processes_save_below_any_path_and_read_it_back(tmp_path):
    directory = tmp_path / "a[lr=1]"
    outcomes = together(*train(directory, updates=20, checkpoint_every=10))
    assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes
    manifest = read_checked_json(directory / "checkpoints/20/manifest.json")
    assert manifest["was_read_back"]
    assert sorted(manifest["files"]) == ["states.1.npz", "states.npz"]
    done = alone("evaluate", str(directory), "--episodes", "2")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_where_a_process_dies_all_end_and_the_run_goes_on(tmp_path, victim):
    directory = tmp_path / "run"
    how = [*train(directory, updates=100_000), "--heartbeat-timeout", str(HEARTBEAT)]
    with started(*how) as pair:
        wait_for_checkpoint(directory, pair)
        kill(pair[victim])
        begin = time.monotonic()
        outcomes = ended(pair)
        assert time.monotonic() - begin < 3 * HEARTBEAT
    code, _, err = outcomes[1 - victim]
    assert code not in (0, 2)
    lines = [line for line in err.splitlines() if line.startswith("purerl: process")]
    assert len(lines) == 1, err
    assert f"process {1 - victim} of 2: another process of this run has died" in lines[0]
    assert lines[0].endswith(f"to go on: purerl resume {directory} --distributed")
    saved = max(int(p.parent.name) for p in directory.glob("checkpoints/*/manifest.json"))
    budget = str((saved + 20) * PER_UPDATE)
    again = ["resume", str(directory), "--total-steps", budget]
    if victim == 0:
        outcomes = together(*again)
        assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes
    else:
        done = alone(*again, "--force")
        assert done.returncode == 0, done.stderr
    assert read_checked_json(directory / "summary.json")["resumed_at"] == saved
    assert metrics(directory)["policy_loss"].shape == (4, saved + 20)


@pytest.mark.slow
@pytest.mark.parametrize("full", [0, 1])
def test_where_one_process_cannot_write_its_share_all_end_with_one_line(full, tmp_path):
    directory = tmp_path / "run"
    with started(*train(directory, updates=100_000)) as pair:
        wait_for_checkpoint(directory, pair)
        resource.prlimit(pair[full].pid, resource.RLIMIT_FSIZE, (2000, 2000))
        outcomes = ended(pair)
    assert [outcome[0] for outcome in outcomes] == [1, 1], outcomes
    lines = [line for _, _, err in outcomes for line in err.splitlines() if "purerl: the" in line]
    assert len(lines) == 1, outcomes
    assert "could not be written: the disk is full; that of update " in lines[0]
    assert not list(directory.glob("checkpoints/.*"))


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_the_same_chunk_and_no_bit_is_lost(tmp_path):
    directory = tmp_path / "run"
    with started(*train(directory, updates=100_000)) as pair:
        wait_for_checkpoint(directory, pair)
        os.kill(pair[1].pid, signal.SIGTERM)
        outcomes = ended(pair)
    assert [outcome[0] for outcome in outcomes] == [143, 143], outcomes
    told = [line for line in outcomes[0][2].splitlines() if line.startswith("purerl: stopped")]
    assert len(told) == 1
    assert f"saved; to go on: purerl resume {directory}" in told[0]
    assert "purerl: stopped" not in outcomes[1][2]
    saved = int(told[0].split("at update ")[1].split()[0])
    assert (directory / "checkpoints" / str(saved) / "manifest.json").exists()
    outcomes = together("resume", str(directory), "--total-steps", str((saved + 10) * PER_UPDATE))
    assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes
    straight = tmp_path / "straight"
    outcomes = together(*train(straight, updates=saved + 10))
    assert [outcome[0] for outcome in outcomes] == [0, 0], outcomes
    found, expected = metrics(directory), metrics(straight)
    for name in ("episode_return", "policy_loss", "value_loss", "baseline_grad_norm"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


PAGE = (ROOT / "docs/pages/clusters.md").read_text()
# `srun` of a job with two tasks on this machine.
SRUN = """#!/bin/sh
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" > "$TASKS/$task" 2>&1 &
    tasks="$tasks $!"
done
for task in $tasks; do wait "$task" || exit; done
"""


@pytest.mark.slow
def test_the_script_for_slurm_trains_10_seeds_on_4_devices_of_two_tasks(tmp_path):
    blocks = (block.split("```")[0] for block in PAGE.split("```sh\n"))
    (script,) = (block for block in blocks if "#SBATCH" in block)
    sizes = " ".join([*SIZES, "--total-steps", str(20 * PER_UPDATE)])
    script = script.replace("--seeds 4096", f"--seeds 10 {sizes}")
    (tmp_path / "job.sh").write_text(script)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (
        ("srun", SRUN),
        ("purerl", f'#!/bin/sh\nexec {sys.executable} -m purerl "$@"\n'),
    ):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    env = environment(
        devices=2,
        PATH=f"{commands}{os.pathsep}{os.environ['PATH']}",
        TASKS=str(tmp_path),
        SLURM_JOB_ID=str(os.getpid()),
        SLURM_STEP_NODELIST="127.0.0.1",
        SLURM_NTASKS="2",
        SLURM_STEP_NUM_NODES="1",
    )

    def submit():
        done = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=env, timeout=240, check=False)
        assert done.returncode == 0, (tmp_path / "0").read_text() + (tmp_path / "1").read_text()

    submit()
    (directory,) = (tmp_path / "runs").iterdir()
    header = read_checked_json(directory / "config.json")
    device = {**header["device"], "kind": "", **dict.fromkeys(describe_cpu())}
    assert device == {
        **dict.fromkeys(describe_cpu()),
        "kind": "",
        "platform": "cpu",
        "count": 4,
        "processes": 2,
    }
    arrays = metrics(directory)
    assert arrays["policy_loss"].shape == (10, 20)
    assert arrays["greedy_episode_return"].shape[0] == len(arrays["failed_at"]) == 10
    assert len(read_checked_json(directory / "summary.json")["seeds"]) == 10
    assert saved_sizes(directory) == {10}
    submit()  # what is requeued goes on; here it is finished, and loaded
    assert "10 seeds" in (tmp_path / "0").read_text()
    expected = tmp_path / "alone"
    algo = header["config"]["algorithm"]["name"]
    how = ["train", "--algo", algo, "--seeds", "10", "--directory", str(expected), *SIZES]
    done = alone(*how, "--total-steps", str(20 * PER_UPDATE))
    assert done.returncode == 0, done.stderr
    assert_same_first_records(directory, expected, records=5)


def saved_sizes(directory):
    """The first sizes of all arrays in a checkpoint."""
    (checkpoint,) = directory.glob("checkpoints/*")
    return {shape[0] for _, _, shape in read_checked_json(checkpoint / "manifest.json")["leaves"]}
