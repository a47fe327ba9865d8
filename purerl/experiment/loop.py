"""What happens between the chunks of a run: records, checkpoints, episodes, hooks, display."""

import contextlib
import dataclasses
import time
from pathlib import Path

from numpy import ndarray

from purerl.evaluation import Evaluation
from purerl.experiment.batches import (
    Standing,
    failed_at,
    join,
    play_episodes,
    to_save,
    train_chunks,
)
from purerl.experiment.hosts.processes import agreed, exchange, on_first
from purerl.experiment.hosts.stopping import LostError, RunError, Signals, Stopped, is_at_once
from purerl.experiment.logging.hooks import Hooks, make_chunk, past_chunks
from purerl.experiment.programs import Programs
from purerl.experiment.progress import Display
from purerl.experiment.store.checkpoint_writer import Checkpoints
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import Conduct, RunPlan
from purerl.training import TrainState

SAVE_AFTER = 60.0  # seconds from one checkpoint to the next, unless `checkpoint_every` says


@dataclasses.dataclass
class Loop:
    """Trains to the end, and tells everybody between chunks."""

    plan: RunPlan
    conduct: Conduct
    programs: Programs
    directory: Path
    display: Display
    checkpoints: Checkpoints
    records: Records
    hooks: Hooks
    signals: Signals
    start: int
    seconds: float = 0.0
    """Of training."""
    evaluation_seconds: float = 0.0
    saved: float = 0.0
    """When the last checkpoint was begun."""

    def train(self, states: list[TrainState] | None) -> TrainState:
        """The states of all agents after training, on the host.

        The result of a chunk is saved before episodes are played with it: those can be played
        again, from what was saved.
        """
        try:
            states = self._train(states)
            self.checkpoints.close()
        except LostError:
            raise  # what is being written waits for the process that has died
        except BaseException as error:
            if not is_at_once(error):
                with contextlib.suppress(RunError):  # what ended the run is told, not this
                    self.checkpoints.close()
            raise
        return join(self.programs, states)

    def _train(self, states: list[TrainState] | None) -> list[TrainState]:
        self.saved = time.monotonic()
        self.display.training(self.programs, self.start)
        if self.start:
            assert states is not None
            self._play(self.start, states)  # where the run ended before they were
            self._tell_the_past(states)
        for now in train_chunks(self.programs, self.start, states):
            states, self.seconds = now.states, now.seconds
            self._record(now)
            self._show(now)
            signal, late = self._heard()
            end = self._reason_to_stop(now, signal)
            if end or self._is_due(now, late):
                self.checkpoints.save(now.updates, to_save(self.programs, states), self.records)
                self.saved = time.monotonic()
            if end:
                self._tell(now, None, None)
                self.checkpoints.close()
                raise agreed(end)
            self._tell(now, *self._play(now.updates, states))
        assert states is not None
        return states

    def _record(self, now: Standing) -> None:
        """Keep the metrics of a chunk."""
        self.records.add_metrics(now.metrics, self.plan.record_updates(now.updates))

    def _play(
        self, updates: int, states: list[TrainState]
    ) -> tuple[Evaluation | None, Evaluation | None]:
        """Play and keep the episodes that are due, unless they were played already."""
        if not self.plan.is_evaluated(updates) or on_first(self.records.is_evaluated, updates):
            return None, None
        begin = time.perf_counter()
        greedy, sampled = play_episodes(self.programs, states, updates)
        self.records.add_evaluation(updates, greedy, sampled)
        self.evaluation_seconds += time.perf_counter() - begin
        if updates == self.plan.config.num_updates:
            self.checkpoints.add(self.records)
        return greedy, sampled

    def _heard(self) -> tuple[int | None, bool]:
        """The signal that any process has got, and whether the first finds a checkpoint late."""
        late = time.monotonic() - self.saved > SAVE_AFTER
        heard = exchange([self.signals.received, late])
        return next((signal for signal, _ in heard if signal), None), heard[0][1]

    def _is_due(self, now: Standing, late: bool) -> bool:
        every = self.plan.checkpoint_every
        due = late if every is None else not now.updates % every
        return due or now.updates == self.plan.config.num_updates

    def _reason_to_stop(self, now: Standing, signal: int | None) -> BaseException | None:
        where = f"at update {now.updates} of {self.plan.config.num_updates}"
        go_on = f"saved; to go on: purerl resume {self.directory}"
        failed = self._failed_seeds(now.failed_at)
        if self.conduct.stop_on_nan and failed:
            names = ", ".join(map(str, failed))
            return RunError(f"stopped {where}: seeds that stopped being finite: {names}; {go_on}")
        if signal is not None and now.updates < self.plan.config.num_updates:
            return Stopped(f"stopped {where}, {go_on}", signal)
        return None

    def _failed_seeds(self, failed: ndarray) -> list[int]:
        return [seed for seed, at in zip(self.plan.seed_ids, failed, strict=True) if at >= 0]

    def _show(self, now: Standing) -> None:
        env_steps = (now.updates - self.start) * self.plan.config.env_steps_per_update
        per_second = env_steps * len(self.plan.seed_ids) / now.seconds
        self.display.update(now, per_second, self._failed_seeds(now.failed_at))

    def _tell(self, now: Standing, greedy: Evaluation | None, sampled: Evaluation | None) -> None:
        """Tell the hooks of a chunk and of the episodes that were played after it."""
        if self.hooks:
            what = (now.updates, now.metrics, self.plan.record_updates(now.updates), now.failed_at)
            self.hooks.send(make_chunk(self.plan, self.directory, *what, greedy, sampled))

    def _tell_the_past(self, states: list[TrainState]) -> None:
        """Tell the hooks of everything that was recorded before this process."""
        failed = failed_at(self.programs, states)  # with all processes, of which one has hooks
        if self.hooks:
            what = (self.plan, self.directory, self.start, self.records, failed)
            for chunk in past_chunks(*what):
                self.hooks.send(chunk)
