"""Measures one point of a bench: an algorithm with its environments, for so many seeds.

`python -m purerl.measuring.points` does so in a process of its own, so that its peak memory is its
own, and that only it ends where memory runs out. It reads a request and writes the answer, as JSON.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purerl.agents import state_shardings
from purerl.checks import first_line
from purerl.compute.mapping import block_size, pad_seeds, program_over_seeds
from purerl.compute.mesh import SEEDS, seed_mesh
from purerl.config.config import Config
from purerl.config.presets import TARGETS, preset
from purerl.experiment.hosts.memory import available_bytes, program_bytes
from purerl.experiment.hosts.startup import use_all_cores
from purerl.experiment.report.format import format_bytes
from purerl.measuring.floors import EnvSteps
from purerl.measuring.limits import machine_limit, products_per_step
from purerl.measuring.machine import describe_machine, peak_device_bytes, peak_process_bytes
from purerl.measuring.spreads import time_in_turn, timed
from purerl.seeds import require_seed_count, seed_keys
from purerl.training import train

# Env steps over all seeds in one run, or more: it has two updates at least.
CPU_STEPS, ACCELERATOR_STEPS = 600_000, 60_000_000


@dataclasses.dataclass(frozen=True)
class PointRequest:
    """What another process shall measure."""

    env: str
    algo: str
    seeds: int
    num_envs: int | None = None
    """None for the preset's."""
    updates: int | None = None
    """Of a run; None for as many as make it long enough."""
    repeats: int = 5
    floor: bool = True
    """Whether the floor of environments and policy is measured too."""
    memory_limit: int | None = None
    """Bytes that may be used on each device; None for what is free."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    directory: str | None = None
    """Where Python looks last, if the environment is named by an import path."""

    def config(self, updates: int | None = None) -> Config:
        """The preset with the settings, for a run of so many updates.

        **Raises:** `ValueError` for what the preset refuses.
        """
        settings: dict[str, Any] = {n: _as_tuple(value) for n, value in self.settings.items()}
        if self.num_envs is not None:
            settings["num_envs"] = self.num_envs
        config = preset(self.env, self.algo, **settings)
        if updates is None:
            return config
        steps = updates * config.env_steps_per_update
        return preset(self.env, self.algo, **settings, total_steps=steps)


@dataclasses.dataclass(frozen=True)
class Point:
    """What a point came to; where `failed` says why it did not, what is not known is None."""

    algo: str
    seeds: int
    num_envs: int | None
    failed: str | None = None
    rollout_length: int | None = None
    updates: int | None = None
    epochs: int | None = None
    baseline_epochs: int | None = None
    """0 without a baseline."""
    env_steps: int | None = None
    """Of all seeds in one run."""
    flops_per_step: float | None = None
    """Of the networks' matrix products and convolutions, per env step."""
    lower_seconds: float | None = None
    """Tracing and lowering."""
    compile_seconds: float | None = None
    first_seconds: float | None = None
    """The first run, which warms up."""
    run_seconds: list[float] | None = None
    """Of each repeat, with other keys each."""
    steps_per_second: list[float] | None = None
    """Env steps of all seeds that are collected and learnt from."""
    floor_steps_per_second: list[float] | None = None
    """Env steps of all seeds with actions of the policy alone, beside each repeat."""
    target_return: float | None = None
    solved_seconds: list[float | None] | None = None
    """Of each repeat, until half of the seeds have had an update whose episodes returned the target
    on average; None where they have not."""
    devices: int | None = None
    device_bytes: int | None = None
    """Memory of the compiled program on each device, as it is planned."""
    peak_device_bytes: int | None = None
    """The most in use on a device, as it reports it; None on a CPU, which does not."""
    peak_process_bytes: int | None = None
    imported_bytes: int | None = None
    """What the process needed before it traced anything."""


def measure_point(request: PointRequest) -> Point:
    """Compile and time a run of all seeds, and beside it the floor, in this process.

    **Raises:** `ValueError` for what a run would refuse, `MemoryError` where memory does not
    suffice, by plan or when it runs.
    """
    imported = peak_process_bytes()
    config, seeds = run_config(request), request.seeds
    mesh = seed_mesh(num_seeds=seeds)
    roots = range(request.repeats + 1)
    keys = [pad_seeds(seed_keys(root, seeds), mesh.shape[SEEDS]) for root in roots]
    block = block_size(config.num_envs)
    # The program of `train_seeds` itself: within another it would be compiled with other options.
    program = program_over_seeds(train, mesh, block=block, shardings=state_shardings)
    lower_seconds, lowered = timed(lambda: program.lower(keys[0], config))
    compile_seconds, compiled = timed(lowered.compile)
    require_memory(program_bytes(compiled), request.memory_limit, mesh.local_devices)
    first_seconds, _ = timed(lambda: compiled(keys[0], config))
    peak = peak_device_bytes(mesh.local_devices[0])

    solved, waiting = [], iter(keys[1:])

    def run():
        metrics = compiled(next(waiting), config)[1]
        solved.append(metrics.episode_return)
        return metrics

    programs = {"trained": run}
    if request.floor:
        steps = program_over_seeds(EnvSteps(config.num_updates, True), mesh, block=block)
        jax.block_until_ready(steps(keys[0], config))
        programs["floor"] = lambda: steps(keys[0], config)
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
        peak_device_bytes=peak,
        peak_process_bytes=peak_process_bytes(),
        imported_bytes=imported,
    )


def run_config(request: PointRequest) -> Config:
    """The config of the run that is measured."""
    updates = request.updates
    if updates is None:
        steps = CPU_STEPS if jax.default_backend() == "cpu" else ACCELERATOR_STEPS
        updates = max(2, steps // (request.seeds * request.config().env_steps_per_update))
    return request.config(updates)


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
        request.config(request.updates)
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
    question_file, answer_file = map(Path, sys.argv[1:])
    use_all_cores()
    answer_file.write_text(json.dumps(answer(json.loads(question_file.read_text()))))


def _as_tuple(value: Any) -> Any:
    """A setting as it was before JSON made a list of a tuple."""
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
