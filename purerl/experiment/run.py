"""The host loop: compiled chunks for all seeds, and between them progress, records and files."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from purerl.checks import divisors, require_divisor, require_positive_int
from purerl.config import Config, require_one_setting
from purerl.experiment import files
from purerl.experiment.checkpoints import Checkpoints, discard_after, newest
from purerl.experiment.display import Display
from purerl.experiment.errors import RunError, Stopped
from purerl.experiment.header import default_directory, make_header, require_same_run
from purerl.experiment.hooks import PATIENCE, Chunk, Hooks
from purerl.experiment.lock import Lock
from purerl.experiment.programs import (
    Programs,
    Standing,
    compile_programs,
    join,
    play_episodes,
    train_chunks,
)
from purerl.experiment.records import Records
from purerl.experiment.result import Run, Times, write_result
from purerl.experiment.signals import Signals
from purerl.experiment.signed import write_signed
from purerl.seeds import seed_ids, seed_keys
from purerl.train import TrainState

SAVE_AFTER = 60.0  # seconds from one checkpoint to the next, unless `checkpoint_every` says


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run, decided: what its bits depend on besides the machine. Its header says it again."""

    config: Config
    root: int
    seed_ids: tuple[int, ...]
    updates_per_chunk: int
    seed_batch: int | None
    evaluation_episodes: int
    evaluate_every: int | None
    target_return: float | None

    def header(self) -> dict[str, Any]:
        """What a run directory says of this run and of the machine."""
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return make_header(told.pop("config"), told.pop("root"), told.pop("seed_ids"), **told)


@dataclasses.dataclass(frozen=True)
class Conduct:
    """How a run is carried out; another conduct comes to the same result."""

    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    memory_limit: int | None = None
    stop_on_nan: bool = False
    hooks: Sequence[Callable[[Chunk], Any]] = ()
    progress: bool = True


def run(
    config: Config,
    seeds: int | Sequence[int] = 1,
    directory: str | Path | None = None,
    *,
    root: int = 0,
    updates_per_chunk: int | None = None,
    seed_batch: int | None = None,
    memory_limit: int | None = None,
    evaluation_episodes: int = 32,
    evaluate_every: int | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 2,
    target_return: float | None = None,
    stop_on_nan: bool = False,
    hooks: Sequence[Callable[[Chunk], Any]] = (),
    progress: bool = True,
) -> Run:
    """Train many seeds in compiled chunks, show progress, and leave a run directory.

    The directory holds `config.json` (settings and versions), `metrics.npz` (`[seeds, records]`),
    `summary.json`, `learning_curve.png`, and `checkpoints/` and `records/`, from which
    `purerl.resume` goes on.

    **Arguments:**

    - `seeds`: a count or the ids themselves, of which `root` makes the keys.
    - `directory`: by default `runs/ENV-ALGORITHM`.
    - `updates_per_chunk`: updates in one compiled call, by default about a thirtieth of all.
    - `seed_batch`: seeds trained at once, by default all, or as many as fit into the memory of the
      devices or into `memory_limit` bytes on each.
    - `evaluation_episodes`: greedy episodes of each seed after training, and every `evaluate_every`
      updates, there with as many sampled ones (0: none; nor are there any without a time limit).
    - `checkpoint_every`: updates from one checkpoint to the next, by default about a minute; the
      last `keep_checkpoints` are kept.
    - `stop_on_nan`: end the run where a seed stops being finite.
    - `hooks`: functions called with a `Chunk` after each chunk, in threads of their own.

    **Raises:** `ValueError` for a size that does not divide, seeds that repeat or do not fit, a
    directory that holds another run or one that is not finished. `RunError` where a run cannot go
    on, and `Stopped` where a signal ended it; what was saved stands.
    """
    require_one_setting(config)
    if evaluation_episodes:
        require_positive_int("evaluation_episodes", evaluation_episodes)
    plan = Plan(
        config=config,
        root=root,
        seed_ids=seed_ids(seeds),
        updates_per_chunk=choose_chunk(
            config,
            updates_per_chunk,
            evaluate_every=evaluate_every,
            checkpoint_every=checkpoint_every,
        ),
        seed_batch=seed_batch,
        evaluation_episodes=evaluation_episodes,
        evaluate_every=evaluate_every,
        target_return=target_return,
    )
    conduct = Conduct(
        checkpoint_every, keep_checkpoints, memory_limit, stop_on_nan, tuple(hooks), progress
    )
    check_plan(plan, conduct)
    header = plan.header()
    directory = default_directory(config, header) if directory is None else Path(directory)
    require_same_run(directory, header)
    with Lock(directory):
        _require_finished(directory, config)
        return carry_out(plan, conduct, directory)


def check_plan(plan: Plan, conduct: Conduct) -> None:
    """Refuse counts that are none, and what would have no effect."""
    for name, value in (("seed_batch", plan.seed_batch), ("memory_limit", conduct.memory_limit)):
        if value is not None:
            require_positive_int(name, value)
    if plan.evaluate_every and not (plan.evaluation_episodes and plan.config.time_limit):
        raise ValueError(
            f"evaluate_every = {plan.evaluate_every} has no effect without evaluation_episodes, "
            f"or without a time limit; leave it out."
        )
    require_positive_int("keep_checkpoints", conduct.keep_checkpoints)
    if conduct.keep_checkpoints < 2:
        raise ValueError(
            "keep_checkpoints = 1 must be at least 2: one is whole while another is written."
        )


def _require_finished(directory: Path, config: Config) -> None:
    """Refuse a directory with a run that is not finished: its checkpoints are not lost unasked."""
    updates = newest(directory, warn=False)
    if updates is not None and updates != config.num_updates:
        raise ValueError(
            f"directory = {str(directory)!r} holds this run, stopped at update {updates} of "
            f"{config.num_updates}; go on with purerl resume {directory}, or remove it."
        )


def carry_out(
    plan: Plan,
    conduct: Conduct,
    directory: Path,
    start: int = 0,
    restore: Callable[[Programs], tuple[list[TrainState], Records]] | None = None,
) -> Run:
    """Train as planned, from the start or from what `restore` gives, and write the result."""
    config = plan.config
    with Display(config.num_updates, plan.target_return, show=conduct.progress) as display:
        programs = compile_programs(
            seed_keys(plan.root, plan.seed_ids),
            config,
            None,
            chunk_updates=plan.updates_per_chunk,
            episodes=plan.evaluation_episodes,
            sampled=plan.evaluate_every is not None,
            seed_batch=plan.seed_batch,
            memory_limit=conduct.memory_limit,
        )
        plan = dataclasses.replace(plan, seed_batch=programs.seed_batch)
        states, records = (None, Records()) if restore is None else restore(programs)
        header = plan.header()
        try:
            write_signed(directory / files.HEADER, header)
            discard_after(directory, start)
            keep = conduct.keep_checkpoints
            checkpoints = Checkpoints(directory, header, start, keep=keep)
        except OSError as error:
            raise RunError(f"{directory} cannot be written: {error.strerror}.") from error
        loop = Loop(plan, conduct, programs, directory, display, checkpoints, records, start)
        states, run_seconds, evaluation_seconds = loop.train(states)
    result = Run(
        config=config,
        states=states,
        metrics=records.metrics(),
        evaluations=records.evaluations(),
        seed_ids=plan.seed_ids,
        directory=directory,
        target_return=plan.target_return,
        times=Times(programs.seconds, run_seconds, evaluation_seconds),
        resumed_at=start,
    )
    try:
        write_result(result, records)
    except OSError as error:
        raise RunError(
            f"the result could not be written: {error.strerror}; the last checkpoint stands. "
            f"Make room and write it again: purerl resume {directory}"
        ) from error
    return result


@dataclasses.dataclass
class Loop:
    """What happens between the chunks of a run."""

    plan: Plan
    conduct: Conduct
    programs: Programs
    directory: Path
    display: Display
    checkpoints: Checkpoints
    records: Records
    start: int
    evaluation_seconds: float = 0.0

    def train(self, states: list[TrainState] | None) -> tuple[TrainState, float, float]:
        """The states after training, and the seconds of training and of evaluation."""
        hooks = Hooks(self.conduct.hooks)
        if self.start:
            hooks.send(self._chunk(0, self.start, self._failed_at(states)))
        self.display.training(self.start)
        saved, seconds = time.monotonic(), 0.0
        try:
            with Signals() as signals:
                for now in train_chunks(self.programs, self.start, states):
                    states, seconds = now.states, now.seconds
                    self._record(now)
                    hooks.send(self._chunk(self._before(now), now.updates, now.failed_at))
                    self._show(now)
                    end = self._reason_to_stop(now, signals)
                    if end or self._is_due(now, saved):
                        self.checkpoints.save(
                            now.updates, join(self.programs, now.states), self.records
                        )
                        saved = time.monotonic()
                    if end:
                        self.checkpoints.close()
                        raise end
            self.checkpoints.close()
        except BaseException:
            hooks.close(PATIENCE)
            with contextlib.suppress(RunError):  # what ended the run is told, not this
                self.checkpoints.close()
            raise
        hooks.close()
        assert states is not None
        return (
            join(self.programs, states),
            seconds - self.evaluation_seconds,
            self.evaluation_seconds,
        )

    def _before(self, now: Standing) -> int:
        return now.updates - self.plan.updates_per_chunk

    def _record(self, now: Standing) -> None:
        """Keep the metrics of a chunk, and play the episodes that are due after it."""
        every = self.plan.config.log_every
        updates = np.arange(self._before(now) + every, now.updates + 1, every)
        self.records.add_metrics(now.metrics, updates)
        interval = self.plan.evaluate_every
        if now.updates == self.plan.config.num_updates or (interval and not now.updates % interval):
            begin = time.perf_counter()
            greedy, sampled = play_episodes(self.programs, now.states, now.updates)
            if greedy is not None:
                self.records.add_evaluation(now.updates, greedy, sampled)
            self.evaluation_seconds += time.perf_counter() - begin

    def _is_due(self, now: Standing, saved: float) -> bool:
        every = self.conduct.checkpoint_every
        due = time.monotonic() - saved > SAVE_AFTER if every is None else not now.updates % every
        return due or now.updates == self.plan.config.num_updates

    def _reason_to_stop(self, now: Standing, signals: Signals) -> BaseException | None:
        where = f"at update {now.updates} of {self.plan.config.num_updates}"
        go_on = f"saved; to go on: purerl resume {self.directory}"
        failed = self._failed_seeds(now.failed_at)
        if self.conduct.stop_on_nan and failed:
            names = ", ".join(map(str, failed))
            return RunError(f"stopped {where}: seeds that stopped being finite: {names}; {go_on}")
        if signals.received is not None and now.updates < self.plan.config.num_updates:
            return Stopped(f"stopped {where}, {go_on}", signals.received)
        return None

    def _failed_seeds(self, failed_at: ndarray) -> list[int]:
        ids = zip(self.plan.seed_ids, failed_at, strict=True)
        return [seed for seed, failed in ids if failed >= 0]

    def _failed_at(self, states: list[TrainState] | None) -> ndarray:
        assert states is not None
        return join(self.programs, [np.array(state.failed_at) for state in states])

    def _show(self, now: Standing) -> None:
        env_steps = (now.updates - self.start) * self.plan.config.env_steps_per_update
        per_second = env_steps * len(self.plan.seed_ids) / now.seconds
        self.display.update(now, per_second, self._failed_seeds(now.failed_at))

    def _chunk(self, start: int, stop: int, failed_at: ndarray) -> Chunk:
        """What hooks are told of the updates after `start` and until `stop`."""
        recorded = Records()
        recorded.append(self.records.between(start, stop))
        per_update = self.plan.config.env_steps_per_update
        updates = recorded.updates()
        evaluations = recorded.evaluations()
        greedy = sampled = None
        if evaluations is not None and len(evaluations.updates) and evaluations.updates[-1] == stop:
            greedy = np.asarray(evaluations.greedy.episode_return)[:, -1].mean(axis=-1)
            if evaluations.sampled is not None:
                sampled = np.asarray(evaluations.sampled.episode_return)[:, -1].mean(axis=-1)
        return Chunk(
            directory=self.directory,
            updates=stop,
            env_steps=stop * per_update,
            seed_ids=self.plan.seed_ids,
            metrics=recorded.metrics(),
            failed_at=failed_at,
            record_updates=updates,
            record_env_steps=updates * per_update,
            greedy_return=greedy,
            sampled_return=sampled,
        )


def choose_chunk(config: Config, updates_per_chunk: int | None, **every: int | None) -> int:
    """The updates of one chunk, checked; by default about a thirtieth of all.

    What happens `every` so many updates happens between two chunks.
    """
    intervals = {name: each for name, each in every.items() if each is not None}
    for name, interval in intervals.items():
        require_positive_int(name, interval)
    if updates_per_chunk is None:
        for name, interval in intervals.items():
            require_divisor("log_every", config.log_every, name, interval)
        # The divisor that makes the number of chunks nearest to 30, in ratio.
        records = min(
            divisors(math.gcd(config.num_updates, *intervals.values()) // config.log_every),
            key=lambda d: abs(np.log(config.num_records / d / 30)),
        )
        return records * config.log_every
    require_positive_int("updates_per_chunk", updates_per_chunk)
    intervals["num_updates"] = config.num_updates
    for name, interval in intervals.items():
        require_divisor("updates_per_chunk", updates_per_chunk, name, interval)
    require_divisor("log_every", config.log_every, "updates_per_chunk", updates_per_chunk)
    return updates_per_chunk
