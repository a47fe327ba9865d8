"""Processes that are killed, stopped by signals or starved of disk, and go on."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import command, environment

from purerl.experiment.store.identity import MARK

SCRIPT = """
import hashlib, sys
from pathlib import Path

import purerl
from purerl.experiment.store.leaves import own_pieces

directory, num_updates = Path(sys.argv[1]), int(sys.argv[2])
every = {"checkpoint_every": 2, "progress": False}
if (directory / "config.json").exists():
    run = purerl.resume(directory, **every)
else:
    sizes = {"num_envs": 4, "rollout_length": 8, "hidden": (8,)}
    config = purerl.vpg("CartPole-v1", total_steps=32 * num_updates, **sizes)
    run = purerl.run(config, 3, directory, updates_per_chunk=2, evaluate_every=20, **every)
leaves = b"".join(piece.array.tobytes() for piece in own_pieces(run.states))
print(run.resumed_at, hashlib.sha256(leaves).hexdigest())
"""


def begin(directory, cache, num_updates=240):
    args = [sys.executable, "-c", SCRIPT, str(directory), str(num_updates)]
    pipe = subprocess.PIPE
    return subprocess.Popen(args, env=environment(cache), stdout=pipe, stderr=pipe, text=True)


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    resumed_at, digest = out.split()
    return int(resumed_at), digest


def newest(directory):
    names = [path.parent.name for path in directory.glob("checkpoints/*/manifest.json")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def was_being_written(directory):
    steps = [path for path in (directory / "checkpoints").iterdir() if path.is_dir()]
    return any(not (step / "manifest.json").exists() for step in steps)


def arrays(directory):
    """The metrics of a run, without whose they are."""
    with np.load(directory / "metrics.npz") as saved:
        return {name: saved[name] for name in saved if name != MARK}


@pytest.mark.slow
@pytest.mark.as_users
def test_twenty_kills_change_no_bit(tmp_path):
    rest = random.Random(0)
    straight, killed, cache = tmp_path / "straight", tmp_path / "killed", tmp_path / "cache"
    _, expected = finish(begin(straight, cache))
    kills = during_a_checkpoint = 0
    while kills < 20:
        process = begin(killed, cache)
        before = newest(killed)
        while newest(killed) <= before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rest.uniform(0, 0.3))
        assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        kills += 1
        during_a_checkpoint += was_being_written(killed)
    resumed_at, digest = finish(begin(killed, cache))
    assert resumed_at > 0
    assert during_a_checkpoint > 0
    assert digest == expected
    ours, theirs = arrays(killed), arrays(straight)
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.slow
def test_a_full_disk_ends_with_a_line_and_the_last_checkpoint_stands(tmp_path):
    # A limit on the size of a file stands for a disk without room; it is lifted for the resume.
    starve = """
import resource
def starve(chunk):
    if chunk.updates == 12:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
"""
    script = starve + SCRIPT.replace("evaluate_every=20,", "hooks=[starve],")
    args = [sys.executable, "-c", script, str(tmp_path / "run"), "200"]
    cache = environment(tmp_path / "cache")
    done = subprocess.run(args, env=cache, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert "could not be written: the disk is full" in line
    assert f"purerl resume {tmp_path / 'run'}" in line
    last = newest(tmp_path / "run")
    assert last >= 8
    assert f"that of update {last} stands" in line
    resumed_at, _ = finish(begin(tmp_path / "run", tmp_path / "cache", 200))
    assert resumed_at == last


def wait_for(directory, process):
    """Until everything is compiled and training begins: the header then says of how many seeds."""
    path = directory / "config.json"
    start = time.monotonic()
    while not path.exists() or '"seed_batch": 2' not in path.read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - start < 120
        time.sleep(0.01)


TINY = ("--num-envs", "4", "--rollout-length", "16", "--hidden", "8", "--seeds", "2")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_finishes_the_chunk_saves_and_says_how_to_go_on(sent, code, tmp_path):
    cache = tmp_path / "cache"
    args = ("--total-steps", "6400000", "--updates-per-chunk", "200", "--directory", "run")
    process = command("train", *TINY, *args, cwd=tmp_path, cache=cache)
    wait_for(tmp_path / "run", process)
    time.sleep(0.5)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err.decode()
    last = newest(tmp_path / "run")
    assert 0 < last < 100_000
    assert f"stopped at update {last} of 100000" in err.decode()
    assert "purerl resume run" in err.decode()
    # The lock is free and the state is whole: an evaluation reads it.
    played = command("evaluate", "run", "--episodes", "4", cwd=tmp_path, cache=cache)
    out, err = played.communicate(timeout=120)
    assert played.returncode == 0, err.decode()
    assert f"update {last}" in out.decode()


@pytest.mark.slow
def test_a_signal_while_it_compiles_leaves_a_run_that_goes_on(tmp_path):
    args = ("--total-steps", "6400", "--directory", "run")
    process = command("train", *TINY, *args, cwd=tmp_path, cache=tmp_path / "cache")
    while not (tmp_path / "run/config.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err.decode()
    assert err.decode() == "purerl: stopped before training; to go on: purerl resume run\n"
    again = command("resume", "run", cwd=tmp_path, cache=tmp_path / "cache")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err.decode()


@pytest.mark.slow
def test_two_processes_in_one_directory_at_once_are_refused(tmp_path):
    args = ("--total-steps", "640000000", "--updates-per-chunk", "200", "--directory", "run")
    first = command("train", *TINY, *args, cwd=tmp_path, cache=tmp_path / "cache")
    wait_for(tmp_path / "run", first)
    second = command("train", *TINY, *args, cwd=tmp_path, cache=tmp_path / "cache")
    _, err = second.communicate(timeout=120)
    assert second.returncode == 2
    assert "'run' is in use by another run" in err.decode()
    assert err.decode().count("\n") == 1
    first.kill()
    first.communicate()


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_directory_without_write_permission_is_refused_in_a_line(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent != Path("/tmp"):
            parent.chmod(0o755)
    code = f"""
import os, sys, pathlib
from purerl.experiment.store.directory import Lock
os.setuid(65534)
try:
    Lock(pathlib.Path({str(directory)!r})).__enter__()
except ValueError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot be locked: Permission denied" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 600 kB, where root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    args = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(args, capture_output=True).returncode:
        pytest.skip("only root can mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["checkpoint", "result"])
def test_a_full_disk_ends_with_a_line_alone(when, small_disk, tmp_path):
    run, cache = small_disk / "run", tmp_path / "cache"
    args = ("--total-steps", "6400", "--checkpoint-every", "5", "--updates-per-chunk", "5")
    first = command("train", *TINY, *args, "--directory", str(run), cwd=tmp_path, cache=cache)
    _, err = first.communicate(timeout=120)
    if when == "result":
        assert first.returncode == 0, err.decode()
        (run / "summary.json").unlink()
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    if when == "checkpoint":  # room for the header, but not for the states
        os.truncate(filler, filler.stat().st_size - 24_576)
    more = ("--total-steps", "9600") if when == "checkpoint" else ()
    again = command("resume", str(run), *more, cwd=tmp_path, cache=cache)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 1, err.decode()
    line = {"checkpoint": "the checkpoint of update ", "result": "the result could not be written"}
    assert line[when] in err.decode()
    assert "the disk is full" in err.decode()
    assert "Traceback" not in err.decode(), err.decode()
    assert "ERROR:absl" not in err.decode()
    filler.unlink()
    again = command("resume", str(run), cwd=tmp_path, cache=cache)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err.decode()


@pytest.fixture
def few_inodes(tmp_path):
    """A disk with room for bytes and for few files, where root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    args = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=60", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(args, capture_output=True).returncode:
        pytest.skip("only root can mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk, left):
    """Use the inodes of a disk up to so many."""
    (disk / "fill").mkdir(exist_ok=True)
    while os.statvfs(disk).f_ffree > left:
        (disk / "fill" / str(os.statvfs(disk).f_ffree)).touch()


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1, 3, 7])
def test_a_disk_without_room_for_files_ends_a_run_within_seconds(left, few_inodes, tmp_path):
    fill(few_inodes, 6 + left)  # for the directory, its lock, its header and what writes it
    args = ("--total-steps", "6400", "--checkpoint-every", "5", "--updates-per-chunk", "5")
    run = few_inodes / "run"
    begin = time.monotonic()
    first = command("train", *TINY, *args, "--directory", str(run), cwd=tmp_path, cache=tmp_path)
    _, err = first.communicate(timeout=120)  # it has compiled
    assert time.monotonic() - begin < 100
    assert first.returncode in (0, 1, 2), err.decode()  # 2: not even a directory could be made
    assert "Traceback" not in err.decode(), err.decode()
    assert err.decode().count("purerl: ") == (first.returncode > 0), err.decode()


WITHOUT_ROOM = """
import errno, os, sys, time
import purerl

directory, updates, real = sys.argv[1], int(sys.argv[2]), os.mkdir


def refuse(path, *args, **kwargs):
    if "checkpoints" + os.sep in str(path):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))
    real(path, *args, **kwargs)


os.mkdir = refuse
config = purerl.vpg("CartPole-v1", num_envs=4, rollout_length=16, hidden=(8,), total_steps=1280)
begin = time.monotonic()
try:
    purerl.run(config, 2, directory, updates_per_chunk=5, checkpoint_every=5, progress=False)
except purerl.RunError as error:
    print(error)
    print(f"seconds: {time.monotonic() - begin:.1f}")
"""


@pytest.mark.slow
def test_from_python_too_a_disk_without_room_for_files_ends_a_run_within_seconds(tmp_path):
    args = [sys.executable, "-c", WITHOUT_ROOM, str(tmp_path / "run"), "20"]
    cache, begin = environment(tmp_path / "cache"), time.monotonic()
    done = subprocess.run(args, env=cache, capture_output=True, text=True, timeout=120)
    assert time.monotonic() - begin < 100
    assert done.returncode == 0, done.stderr
    assert "could not be written: the disk is full" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("when", ["checkpoint", "result"])
def test_a_directory_that_is_removed_ends_a_run_with_a_line(when, tmp_path):
    cache = tmp_path / "cache"
    every = ("--checkpoint-every", "200") if when == "checkpoint" else ()
    args = ("--total-steps", "1280000", "--updates-per-chunk", "200", "--directory", "run", *every)
    process = command("train", *TINY, *args, cwd=tmp_path, cache=cache)
    wait_for(tmp_path / "run", process)
    while (tmp_path / "run").exists():  # what is written meanwhile too
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err.decode()
    assert err.decode().splitlines()[-1].startswith("purerl: ")
    assert "run is not there any more" in err.decode()
    assert "purerl resume" not in err.decode()
    assert "Traceback" not in err.decode()


@pytest.mark.slow
def test_a_hangup_that_is_ignored_does_not_stop_a_run(tmp_path):
    args = ("--total-steps", "1280000", "--updates-per-chunk", "200", "--directory", "run")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        process = command("train", *TINY, *args, cwd=tmp_path, cache=tmp_path / "cache")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(tmp_path / "run", process)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()


def test_a_second_interrupt_stops_at_once(tmp_path):
    # One chunk that would take minutes.
    args = ("--total-steps", "640000000", "--updates-per-chunk", "10000000", "--directory", "run")
    process = command("train", *TINY, *args, cwd=tmp_path, cache=tmp_path / "cache")
    wait_for(tmp_path / "run", process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None  # it waits for the chunk
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped at once" in err.decode()
