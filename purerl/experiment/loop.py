"""What happens between the chunks of a run: records, checkpoints, episodes, hooks, display."""

import contextlib
import dataclasses
import time

from numpy import ndarray

from purerl.evaluation import EvaluationPair
from purerl.experiment.batches import ChunkResult, SeedBatches
from purerl.experiment.failures import has_agents_left
from purerl.experiment.hosts.processes import (
    all_gather,
    is_main_process,
    mark_raised_by_all,
    on_main_process,
)
from purerl.experiment.hosts.stopping import (
    LostProcessError,
    RunError,
    Stopped,
    is_second_interrupt,
)
from purerl.experiment.logging.hooks import HookRunner, make_chunk, replay_chunks
from purerl.experiment.report.curves import LastEpisodes
from purerl.experiment.session import Session
from purerl.experiment.store.checkpoint_writer import CheckpointWriter
from purerl.experiment.store.checkpoints import Snapshot
from purerl.experiment.store.paths import resume_command
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import RunSpec
from purerl.training import TrainState

SAVE_AFTER = 60.0  # seconds from one checkpoint to the next, unless `checkpoint_every` says


@dataclasses.dataclass
class TrainingLoop:
    """Trains to the end, or until no agent is left.

    Between chunks it records, shows, saves, evaluates and calls hooks.
    """

    session: Session
    batches: SeedBatches
    checkpoints: CheckpointWriter
    hooks: HookRunner
    start: int  # updates trained before this process began
    records: Records
    seconds: float = 0.0  # of training
    evaluation_seconds: float = 0.0
    saved_at: float = 0.0  # when the last checkpoint began
    last: LastEpisodes = dataclasses.field(init=False)  # before the newest chunk

    @property
    def spec(self) -> RunSpec:
        return self.session.spec

    def train(self, states: list[TrainState]) -> TrainState:
        """Train from the states of all batches; return those of all agents, on the host.

        A chunk is saved before its episodes are played: they can be played again from there.
        """
        try:
            trained = self._train(states)
            self.checkpoints.wait()
        except LostProcessError:
            raise  # the writer waits for the process that has died: do not wait for it
        except BaseException as error:
            if not is_second_interrupt(error):
                with contextlib.suppress(RunError):  # the first error is the one to raise
                    self.checkpoints.wait()
            raise
        return self.batches.merge(trained)

    def _train(self, states: list[TrainState]) -> list[TrainState]:
        self.saved_at = time.monotonic()
        self.last = LastEpisodes.none(len(self.spec.seed_ids))
        if self.start and is_main_process():  # the others have no records
            self.last = self.last.after(self.records.metrics())
        latest = self.last.episode_return
        self.session.display.start_training(self.batches.programs, self.start, latest)
        if self.start:
            self._evaluate(self.start, states)  # if the run ended before this
            self._replay_to_hooks(states)
        for chunk in self.batches.train(self.start, states, self.spec.intervals.values()):
            states, self.seconds = chunk.states, chunk.seconds
            self._record(chunk)
            self._show(chunk)
            signal, is_late = self._poll()
            is_over = not has_agents_left(chunk.failed_at)
            reason = None if is_over else self._reason_to_stop(chunk, signal)
            if reason or is_over or self._is_due(chunk, is_late):
                saved = self.batches.states_to_save(states)
                snapshot = Snapshot(chunk.updates, saved, self.records)
                # Whoever sends a signal may not wait: what resumes reads it back.
                self.checkpoints.save(snapshot, verify=not isinstance(reason, Stopped))
                self.saved_at = time.monotonic()
            if reason or is_over:
                self._send_to_hooks(chunk, EvaluationPair(None, None))
            if reason:
                self.checkpoints.wait()
                raise mark_raised_by_all(reason)
            if is_over:
                break
            self._send_to_hooks(chunk, self._evaluate(chunk.updates, states))
        return states

    def _record(self, chunk: ChunkResult) -> None:
        self.records.add_metrics(chunk.metrics, chunk.record_updates)

    def _evaluate(self, updates: int, states: list[TrainState]) -> EvaluationPair:
        """Play and record the episodes that are due, unless they were played already."""
        is_due = self.spec.evaluates_at(updates)
        if not is_due or on_main_process(self.records.is_evaluated, updates):
            return EvaluationPair(None, None)
        begin = time.perf_counter()
        played = self.batches.evaluate(states, updates)
        self.records.add_evaluation(updates, played)
        self.evaluation_seconds += time.perf_counter() - begin
        if updates == self.spec.config.num_updates:
            self.checkpoints.add(self.records)
        return played

    def _poll(self) -> tuple[int | None, bool]:
        """A signal that any process has received, and whether the main one finds a save overdue."""
        is_late = time.monotonic() - self.saved_at > SAVE_AFTER
        polled = all_gather([self.session.signals.received, is_late])
        return next((signal for signal, _ in polled if signal), None), polled[0][1]

    def _is_due(self, chunk: ChunkResult, is_late: bool) -> bool:
        every = self.spec.checkpoint_every
        is_due = is_late if every is None else not chunk.updates % every
        return is_due or chunk.updates == self.spec.config.num_updates

    def _reason_to_stop(self, chunk: ChunkResult, signal: int | None) -> BaseException | None:
        position = f"at update {chunk.updates} of {self.spec.config.num_updates}"
        advice = f"saved; to go on: {resume_command(self.session.directory)}"
        failed = self._failed_seeds(chunk.failed_at)
        if self.session.execution.stop_on_nan and failed:
            seeds = f"seeds that stopped being finite: {', '.join(map(str, failed))}"
            return RunError(f"stopped {position}: {seeds}; {advice}")
        if signal is not None and chunk.updates < self.spec.config.num_updates:
            return Stopped(f"stopped {position}, {advice}", signal)
        return None

    def _failed_seeds(self, failed_at: ndarray) -> list[int]:
        return [seed for seed, at in zip(self.spec.seed_ids, failed_at, strict=True) if at >= 0]

    def _show(self, chunk: ChunkResult) -> None:
        env_steps = (chunk.updates - self.start) * self.spec.config.env_steps_per_update
        per_second = env_steps * len(self.spec.seed_ids) / chunk.seconds
        self.session.display.update(chunk, per_second, self._failed_seeds(chunk.failed_at))

    def _send_to_hooks(self, chunk: ChunkResult, played: EvaluationPair) -> None:
        """Send the hooks a chunk and the episodes played after it."""
        if not self.hooks:
            return
        results = (chunk.updates, chunk.metrics, chunk.record_updates, chunk.failed_at, played)
        self.hooks.send(make_chunk(self.spec, self.session.directory, *results, self.last))
        self.last = self.last.after(chunk.metrics)

    def _replay_to_hooks(self, states: list[TrainState]) -> None:
        """Send the hooks everything that was recorded before this process began."""
        failed_at = self.batches.failed_at(states)  # all processes must call it; one has hooks
        if not self.hooks:
            return
        recorded = (self.start, self.records, failed_at)
        for chunk in replay_chunks(self.spec, self.session.directory, *recorded):
            self.hooks.send(chunk)
