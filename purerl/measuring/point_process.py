"""Measures one point of a bench: an algorithm with its environments, for so many seeds.

`python -m purerl.measuring.point_process` does so in a process of its own, so that its peak memory
is its own, and that only it ends where memory runs out. Requests and answers are JSON.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from purerl.agents import state_shardings
from purerl.checks import first_line
from purerl.compute.mapping import block_size, pad_seeds, program_over_seeds
from purerl.compute.mesh import SEEDS, seed_mesh
from purerl.config.config import Config
from purerl.config.presets import TARGETS
from purerl.experiment.hosts.asking import end_with
from purerl.experiment.hosts.memory import available_bytes, program_bytes
from purerl.experiment.hosts.startup import use_all_cores
from purerl.experiment.report.format import format_bytes
from purerl.measuring.floors import EnvSteps
from purerl.measuring.limits import machine_limit, products_per_step
from purerl.measuring.machine import describe_machine, peak_device_bytes, peak_process_bytes
from purerl.measuring.points import Point, PointRequest
from purerl.measuring.spreads import time_in_turn, timed
from purerl.seeds import require_seed_count, seed_keys
from purerl.training import train

# Env steps over all seeds in one run, or more: it has two updates at least.
CPU_STEPS, ACCELERATOR_STEPS = 600_000, 60_000_000
# An update of few seeds takes an accelerator as long as its launches, thousands of them.
ACCELERATOR_UPDATES = 200


def measure_point(request: PointRequest) -> Point:
    """Compile and time a run of all seeds, and beside it the floor, in this process.

    **Raises:** `ValueError` for what a run would refuse, `MemoryError` where memory does not
    suffice, by plan or when it runs.
    """
    imported = peak_process_bytes()
    config, seeds = run_config(request), request.seeds
    mesh = seed_mesh(num_seeds=seeds)
    device = mesh.local_devices[0]
    roots = range(request.repeats + 1)
    keys = [pad_seeds(seed_keys(root, seeds), mesh.shape[SEEDS]) for root in roots]
    block = block_size(config.num_envs)
    # The program of `train_seeds` itself: within another it would be compiled with other options.
    program = program_over_seeds(
        train, mesh, block=block, shardings=state_shardings, with_layout=True
    )
    lower_seconds, lowered = timed(lambda: program.lower(keys[0], config))
    compile_seconds, compiled = timed(lowered.compile)
    require_memory(program_bytes(compiled), request.memory_limit, mesh.local_devices)
    compiled_peak = peak_device_bytes(device)
    first_seconds = timed(lambda: compiled(keys[0], config))[0]
    # Here: nothing but training has run.
    peaks = (peak_device_bytes(device), peak_process_bytes())

    solved, waiting = [], iter(keys[1:])

    def run():
        metrics = compiled(next(waiting), config)[1]
        solved.append(metrics.episode_return)
        return metrics

    programs = {"trained": run}
    floor = compile_floor(config, mesh, keys[0], request.memory_limit) if request.floor else None
    if floor is not None:
        programs["floor"] = lambda: floor(keys[0], config)
    seconds = time_in_turn(programs, request.repeats)
    env_steps, target = config.env_steps * seeds, TARGETS.get(request.env)
    solved_after = [share_until(np.asarray(each)[:seeds], target) for each in solved]
    return Point(
        algo=request.algo,
        seeds=seeds,
        num_envs=config.num_envs,
        rollout_length=config.rollout_length,
        updates=config.num_updates,
        epochs=config.epochs,
        baseline_epochs=config.baseline_epochs if config.algorithm.has_baseline else 0,
        env_steps=env_steps,
        flops_per_step=sum(products_per_step(config).values()),
        lower_seconds=lower_seconds,
        compile_seconds=compile_seconds,
        first_seconds=first_seconds,
        run_seconds=seconds["trained"],
        steps_per_second=[env_steps / each for each in seconds["trained"]],
        floor_steps_per_second=[env_steps / each for each in seconds.get("floor", [])] or None,
        target_return=target,
        solved_seconds=None
        if target is None
        else [
            None if share is None else share * each
            for share, each in zip(solved_after, seconds["trained"], strict=True)
        ],
        devices=mesh.size,
        device_bytes=program_bytes(compiled),
        peak_device_bytes=peaks[0],
        compiled_peak_bytes=compiled_peak,
        peak_process_bytes=peaks[1],
        imported_bytes=imported,
    )


def compile_floor(
    config: Config, mesh: Mesh, keys: Key[Array, " seeds"], memory_limit: int | None
) -> Callable[..., Any] | None:
    """The program of environments and policy alone, which has run once; None without memory."""
    steps = EnvSteps(config.num_updates, with_policy=True)
    program = program_over_seeds(steps, mesh, block=block_size(config.num_envs))
    try:
        compiled = program.lower(keys, config).compile()
        require_memory(program_bytes(compiled), memory_limit, mesh.local_devices)
        jax.block_until_ready(compiled(keys, config))
    except Exception as error:
        if why_out_of_memory(error) is None:
            raise
        return None
    return compiled


def run_config(request: PointRequest) -> Config:
    """The config of the run that is measured."""
    if request.updates is not None:
        return request.config(request.updates)
    per_update = request.seeds * request.config().env_steps_per_update
    updates = CPU_STEPS // per_update
    if jax.default_backend() != "cpu":
        updates = min(ACCELERATOR_STEPS // per_update, ACCELERATOR_UPDATES)
    return request.config(max(2, updates))


def require_memory(needed: int, limit: int | None, devices: Any) -> None:
    """Refuse to run what is planned to need more than there is: a CPU's host might stop."""
    limit = available_bytes(devices) if limit is None else limit
    if limit is not None and needed > limit:
        raise MemoryError(
            f"it needs {format_bytes(needed)} on each device, and there are {format_bytes(limit)}"
        )


def share_until(returns: np.ndarray, target: float | None) -> float | None:
    """The share of a run after which half of the seeds have had a record of the target's return.

    **Arguments:** `returns` are `[seeds, records]`, NaN where no episode ended.
    """
    if target is None:
        return None
    reached = returns >= target
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, np.inf)
    middle = np.sort(first)[(len(first) - 1) // 2]
    return float(middle / returns.shape[1]) if np.isfinite(middle) else None


def why_out_of_memory(error: BaseException) -> str | None:
    """The line of an error that says that memory does not suffice; None for any other."""
    if isinstance(error, MemoryError):
        return f"out of memory: {first_line(error)}"
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return f"out of memory: {first_line(error).removeprefix('RESOURCE_EXHAUSTED: ')}"
    return None


def check_requests(requests: Sequence[PointRequest]) -> dict[str, Any]:
    """Refuse what a run would refuse; else describe this machine, and its limit for the floors."""
    for request in requests:
        require_seed_count(request.seeds)
        run_config(request)
    is_asked = any(request.floor for request in requests)
    limit = dataclasses.asdict(machine_limit()) if is_asked else None
    return {"machine": describe_machine(), "limit": limit}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to `{"check": requests}`, or to `{"measure": request}`.

    That is what was `checked`, or a `point`; or why it `failed` or was `refused`.
    """
    requests = [PointRequest(**each) for each in question.get("check", [question.get("measure")])]
    if requests[0].directory is not None:
        sys.path.append(requests[0].directory)
    try:
        if "check" in question:
            return {"checked": check_requests(requests)}
        return {"point": dataclasses.asdict(measure_point(requests[0]))}
    except Exception as error:
        if (reason := why_out_of_memory(error)) is not None:
            return {"failed": reason}
        if isinstance(error, ValueError) and "\n" not in str(error):
            return {"refused": str(error)}
        raise


def main() -> None:
    """Read a question in the first file, and write the answer into the second."""
    question_file, answer_file = map(Path, sys.argv[1:3])
    end_with(int(sys.argv[3]))
    use_all_cores()
    answer_file.write_text(json.dumps(answer(json.loads(question_file.read_text()))))


if __name__ == "__main__":
    main()
