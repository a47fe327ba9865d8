"""Several processes of the command line, as a cluster would start them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from commands import ROOT

PATIENCE = 240  # seconds


def environment(devices, **more):
    """The variables of a process with so many CPU devices."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])])
    told = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": path}
    return inherited | told | more


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def started(*args, count=2, devices=1) -> Iterator[list[subprocess.Popen]]:
    """`purerl ARGS --distributed …` in so many processes, which the `with` ends."""
    where = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", str(count)]
    command = [sys.executable, "-m", "purerl", *args, "--distributed", *where, "--process-id"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([*command, str(i)], env=environment(devices), **pipes)
        for i in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ended(processes):
    """What each process leaves: exit code, stdout, stderr."""
    outcomes = []
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE)
        outcomes.append((process.returncode, out, err))
    return outcomes


def together(*args, count=2, devices=1):
    """`purerl ARGS` in several processes, to their end."""
    with started(*args, count=count, devices=devices) as processes:
        return ended(processes)


def alone(*args, devices=2):
    """`purerl ARGS` in one process."""
    return subprocess.run(
        [sys.executable, "-m", "purerl", *args],
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def wait_for_checkpoint(directory, processes):
    """Until a checkpoint is whole, while all processes live."""
    deadline = time.monotonic() + PATIENCE
    while not list(directory.glob("checkpoints/*/manifest.json")):
        assert all(process.poll() is None for process in processes), ended(processes)
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)


def kill(process):
    os.kill(process.pid, signal.SIGKILL)


def metrics(directory):
    with np.load(directory / "metrics.npz") as saved:
        return dict(saved)
