"""`purerl train` as a user types it, in a process of its own."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from startup import import_seconds
from visiting.stage import Context

from purerl.experiment.store.files import SUMMARY, read_checked_json


def train(context: Context, name: str, *args: str, **variables: str) -> dict[str, Any]:
    """Run the command without a compilation cache; its summary, and its seconds."""
    directory = context.scratch / name
    shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, "-m", "purerl", "train", "--directory", str(directory), *args]
    began = time.monotonic()
    done = subprocess.run(
        command,
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0", "COLUMNS": "100"} | variables,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    print(done.stdout, done.stderr, flush=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(said[-1] if said else f"exit code {done.returncode}")
    summary = read_checked_json(directory / SUMMARY)
    summary.pop("seeds", None)
    importing = None
    with contextlib.suppress(ValueError):  # the run is worth more than this row of its table
        importing = import_seconds(done.stdout)
    return {
        "command": "purerl train " + " ".join(args),
        "variables": variables,
        "summary": summary,
        "import_seconds": importing,
        "command_seconds": seconds,
        "line": told(summary, importing, seconds),
    }


def told(summary: dict[str, Any], importing: float | None, seconds: float) -> str:
    """The line of a run: what it reached, and what it took."""
    times = summary["times"]
    parts = (importing, times["compile"], times["run"], times["evaluate"])
    shown = " + ".join("?" if each is None else f"{each:.1f}" for each in parts)
    solved = summary["solved"]
    reached = "" if solved is None else f", {solved:.0%} of seeds solved"
    rate = summary["steps_per_second"]
    return (
        f"return {summary['episode_return']['value']:.1f}{reached}; {seconds:.1f} s, import + "
        f"compile + run + evaluate {shown}; {(rate or 0) / 1e6:.3g} M steps/s"
    )


def small(context: Context, *args: str) -> tuple[str, ...]:
    """The arguments, or in a rehearsal others that make it tiny."""
    tiny = ("--seeds", "4", "--total-steps", "2048", "--num-envs", "4", "--rollout-length", "32")
    tiny += ("--num-minibatches", "1", "--hidden", "8", "--evaluation-episodes", "2")
    return (*args, *context.pick((), tiny))


def as_typed(context: Context) -> dict[str, Any]:
    """64 seeds of VPG on CartPole."""
    return train(context, "typed", *small(context))


def highest(context: Context) -> dict[str, Any]:
    """The same with products in float32 proper, where XLA's default on a GPU is tf32."""
    precise = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    return train(context, "highest", *small(context), **precise)


def of_preset(env: str, seeds: int) -> Any:
    """PPO's preset of an environment."""

    def work(context: Context) -> dict[str, Any]:
        args = ("--env", env, "--algo", "ppo", *context.pick(("--seeds", str(seeds)), ()))
        return train(context, Path(env).name, *small(context, *args))

    return work
