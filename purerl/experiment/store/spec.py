"""A run, decided: what holds where it goes on too, and what each process is told anew."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy import ndarray

from purerl.checks import divisors, one_line, require_divisor, require_positive_int
from purerl.config.config import Config
from purerl.experiment.store.header import make_header
from purerl.experiment.store.rebuild import NotNamedError, rebuild_config
from purerl.seeds import is_root, seed_keys
from purerl.training import TrainState, init

CHUNKS = 30  # of a run, about, unless `updates_per_chunk` says
FEWEST_CHUNKS = 10  # where there are as many records: between them a run shows, saves and hears


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """A run, decided: all that its bits depend on besides the machine, and what it leaves.

    Its header says it again: where the run goes on and nothing else is asked for, this holds.
    """

    config: Config
    root: int
    seed_ids: tuple[int, ...]
    updates_per_chunk: int
    seed_batch: int | None
    evaluation_episodes: int
    evaluate_every: int | None
    target_return: float | None
    mesh: dict[str, int] | None = None
    """The axes of the devices, None where seeds are spread over all that there are."""
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    hooks: Sequence[dict[str, Any]] = ()
    """As `describe_hooks` tells them."""

    def header(self) -> dict[str, Any]:
        """What a run directory says of this run and of the machine."""
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return make_header(
            "run", told.pop("config"), told.pop("root"), told.pop("seed_ids"), **told
        )

    @property
    def plays(self) -> bool:
        """Whether episodes are played to evaluate: some are asked for, and they end."""
        return bool(self.evaluation_episodes) and self.config.time_limit is not None

    def is_evaluated(self, updates: int) -> bool:
        """Whether episodes are to be played after so many updates."""
        due = self.evaluate_every is not None and updates % self.evaluate_every == 0
        return self.plays and (due or updates == self.config.num_updates)

    def record_updates(self, updates: int) -> ndarray:
        """The updates trained at the end of each record of the chunk that ends after so many."""
        every = self.config.log_every
        return np.arange(updates - self.updates_per_chunk + every, updates + 1, every)

    def state_shapes(self) -> TrainState:
        """Shapes and dtypes of the states of all agents."""

        def states() -> TrainState:
            keys = seed_keys(self.root, self.seed_ids)
            return jax.vmap(init, (0, None))(keys, self.config)

        return jax.eval_shape(states)


@dataclasses.dataclass(frozen=True)
class Conduct:
    """How a process carries a run out; another conduct comes to the same result."""

    memory_limit: int | None = None
    stop_on_nan: bool = False
    hooks: Sequence[Callable[..., Any]] = ()
    progress: bool = True
    mesh: Mesh | None = None


def check_plan(plan: RunPlan, conduct: Conduct) -> None:
    """Refuse counts that are none, intervals that end within a chunk, and what has no effect."""
    if not is_root(plan.root):
        raise ValueError(f"root = {one_line(plan.root)} must be an int from 0 to 2**32 - 1.")
    target = plan.target_return
    is_number = isinstance(target, int | float | np.number) and not isinstance(target, bool)
    if target is not None and not (is_number and np.isfinite(target)):
        raise ValueError(f"target_return = {one_line(target)} must be a finite number.")
    if plan.evaluation_episodes:
        require_positive_int("evaluation_episodes", plan.evaluation_episodes)
    for name, value in (("seed_batch", plan.seed_batch), ("memory_limit", conduct.memory_limit)):
        if value is not None:
            require_positive_int(name, value)
    intervals = {
        "evaluate_every": plan.evaluate_every,
        "checkpoint_every": plan.checkpoint_every,
    }
    _require_whole_chunks(
        plan, {name: each for name, each in intervals.items() if each is not None}
    )
    if plan.evaluate_every and not plan.plays:
        raise ValueError(
            f"evaluate_every = {plan.evaluate_every} has no effect without evaluation_episodes, "
            f"or without a time limit; leave it out."
        )
    require_positive_int("keep_checkpoints", plan.keep_checkpoints)
    if plan.keep_checkpoints < 2:
        raise ValueError(
            "keep_checkpoints = 1 must be at least 2: one is whole while another is written."
        )


def _require_whole_chunks(plan: RunPlan, intervals: dict[str, int]) -> None:
    """Refuse intervals that are no multiple of the chunk, between which nothing happens."""
    config, chunk = plan.config, plan.updates_per_chunk
    for name, interval in intervals.items():
        require_positive_int(name, interval)
    fitting = math.gcd(config.num_updates, *intervals.values())
    shorter = [d for d in divisors(fitting) if d % config.log_every == 0 and d <= chunk]
    for name, interval in intervals.items():
        if interval % chunk:
            near = max(1, interval // chunk) * chunk
            other = f", or updates_per_chunk = {shorter[-1]}" if shorter else ""
            raise ValueError(
                f"{name} = {interval} is not a multiple of the {chunk} updates of a chunk; "
                f"use {near} or {near + chunk}{other}."
            )


def choose_chunk(config: Config, updates_per_chunk: int | None) -> int:
    """The updates of one chunk, checked; by default about a thirtieth of all.

    It is less where their number has no divisor near that, down to the `log_every` of a record. It
    depends on nothing but the config: another chunk is another program, with other bits.
    """
    if updates_per_chunk is None:
        # The count nearest to 30, in ratio, of those that are not too few.
        counts = divisors(config.num_records)
        enough = [each for each in counts if each >= min(FEWEST_CHUNKS, config.num_records)]
        count = min(enough, key=lambda each: abs(np.log(each / CHUNKS)))
        return config.num_records // count * config.log_every
    require_positive_int("updates_per_chunk", updates_per_chunk)
    require_divisor("updates_per_chunk", updates_per_chunk, "num_updates", config.num_updates)
    require_divisor("log_every", config.log_every, "updates_per_chunk", updates_per_chunk)
    return int(updates_per_chunk)


def plan_of(header: dict[str, Any], config: Config | None = None, env: Any = None) -> RunPlan:
    """The plan that a header tells.

    **Raises:** `ValueError` where it holds something of the user's own, and `config` is not given.
    """
    if header.get("kind") != "run":
        raise ValueError("this directory holds a sweep, not a run of one config.")
    if config is None:
        try:
            config = rebuild_config(header["config"], header["env"], env)
        except NotNamedError as error:
            if env is not None and str(error) == "env_params":
                raise ValueError(
                    f"env = {type(env).__name__} does not have the parameters of {header['env']}, "
                    f"with which the run was trained; give that."
                ) from error
            raise ValueError(
                f"{error} of this run is not purerl's or gymnax's own, and is not stored; "
                f"give {'env (--env package.module:Name) or ' * (str(error) == 'env')}"
                f"the config that it was made with."
            ) from error
    names = {field.name for field in dataclasses.fields(RunPlan)} - {"config", "seed_ids"}
    told: dict[str, Any] = {"mesh": None} | {name: header[name] for name in names if name in header}
    return RunPlan(config=config, seed_ids=tuple(header["seeds"]), **told)


def config_with_budget(plan: RunPlan, total_steps: int, start: int) -> Config:
    """The config with another budget, of whole chunks; what it does to schedules is told."""
    require_positive_int("total_steps", total_steps)
    config, chunk = plan.config, plan.updates_per_chunk
    per_chunk = config.env_steps_per_update * chunk
    num_updates = -(-int(total_steps) // per_chunk) * chunk
    if num_updates < start:
        raise ValueError(
            f"total_steps = {total_steps} is less than the {start * config.env_steps_per_update} "
            f"that are trained already; use more."
        )
    if config.anneal and num_updates != config.num_updates:
        now, then = (1 - start / n for n in (config.num_updates, num_updates))
        warnings.warn(
            f"{', '.join(config.anneal)} now fall to 0 over {num_updates} updates instead of "
            f"{config.num_updates}: at update {start} they go from {max(now, 0):.3g} to "
            f"{then:.3g} of their first values.",
            stacklevel=3,
        )
    return dataclasses.replace(config, num_updates=num_updates)
