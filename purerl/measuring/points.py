"""A point of a bench: what is asked of another process, and what that has measured."""

import dataclasses
from typing import Any, NamedTuple

from purerl.config.config import Config, with_updates
from purerl.config.presets import preset
from purerl.experiment.report.format import format_bytes


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
        return config if updates is None else with_updates(config, updates)


class InUse(NamedTuple):
    """The most bytes that were in use."""

    count: int
    by: str
    """A device, as it reports it, or the process."""
    is_bound: bool
    """Whether compiling had as many in use, so that training had these or fewer."""

    def show(self) -> str:
        """`1.5 GB`, or `≤ 1.5 GB`."""
        return "≤ " * self.is_bound + format_bytes(self.count)


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
    compiled_peak_bytes: int | None = None
    """The same before the first run: compilers of GPUs try kernels out, on memory of their own."""
    peak_process_bytes: int | None = None
    imported_bytes: int | None = None
    """What the process needed before it traced anything."""

    def in_use(self) -> InUse:
        """The most in use on a device, or where it does not tell by the process."""
        if self.peak_device_bytes is None:
            return InUse(self.peak_process_bytes or 0, "by the process", False)
        is_bound = self.peak_device_bytes == self.compiled_peak_bytes
        return InUse(self.peak_device_bytes, "as the device reports it", is_bound)


def _as_tuple(value: Any) -> Any:
    """A setting as it was before JSON made a list of a tuple."""
    return tuple(value) if isinstance(value, list) else value
