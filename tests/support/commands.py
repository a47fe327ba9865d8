"""Commands and other processes that tests start."""

import os
import subprocess
import sys
from pathlib import Path

from purerl.planning import targets

ROOT = Path(__file__).parents[2]


def run_purerl(*args, cwd, timeout=180):
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


def environment(cache):
    inherited = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    return inherited | {
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONWARNINGS": "ignore",  # of checkpoints that were cut off
    }


def command(*args, cwd, cache):
    pipe = subprocess.PIPE
    args = [sys.executable, "-m", "purerl", *args]
    return subprocess.Popen(args, cwd=cwd, env=environment(cache), stdout=pipe, stderr=pipe)


def has_compilers():
    try:
        for name in ("h200", "v5e:2x4"):
            targets.require_compiler(targets.parse_target(name))
    except ValueError:
        return False
    return True
