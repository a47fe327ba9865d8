"""A run or a sweep at work: its decisions, its directory, its display and its signals."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

from purerl.config.config import Config
from purerl.experiment.hosts.processes import (
    all_gather,
    is_main_process,
    is_multi_process,
    mark_raised_by_all,
)
from purerl.experiment.hosts.startup import use_compilation_cache
from purerl.experiment.hosts.stopping import Signals, Stopped, call_interruptibly
from purerl.experiment.programs import CompiledPrograms, compile_programs
from purerl.experiment.progress import ProgressDisplay
from purerl.experiment.store.spec import ExecutionOptions, RunSpec
from purerl.seeds import seed_keys


@dataclasses.dataclass(frozen=True)
class Session:
    """What a run or a sweep uses from its start to its end."""

    spec: RunSpec
    execution: ExecutionOptions
    directory: Path
    display: ProgressDisplay
    signals: Signals

    def compile(self, axes: Config | None = None) -> CompiledPrograms:
        """Compile the programs of a run, or with `axes` those of a sweep; signals are handled."""
        spec, execution = self.spec, self.execution
        compile_all = functools.partial(
            compile_programs,
            seed_keys(spec.root, spec.seed_ids),
            spec.config,
            axes,
            chunk_updates=spec.updates_per_chunk,
            episodes=spec.evaluation_episodes,
            sampled=spec.evaluate_every is not None,
            seed_batch=spec.seed_batch,
            memory_limit=execution.memory_limit,
            mesh=execution.mesh,
        )
        return call_interruptibly(compile_all)

    def received_signal(self) -> int | None:
        """A signal that any process has received; all must call it."""
        return next((signal for signal in all_gather(self.signals.received) if signal), None)

    def stop_on_signal(self, message: str) -> None:
        """Raise `Stopped` where any process has received a signal; all must call it."""
        signal = self.received_signal()
        if signal is not None:
            raise mark_raised_by_all(Stopped(message, signal))


@contextlib.contextmanager
def open_session(spec: RunSpec, execution: ExecutionOptions, directory: Path) -> Iterator[Session]:
    """Remember signals inside, and show progress in the main process.

    What is compiled is cached on disk, unless several processes would share it: see `initialize`.
    """
    if not is_multi_process():
        use_compilation_cache()
    show = execution.progress and is_main_process()
    display = ProgressDisplay(spec.config.num_updates, spec.target_return, show=show)
    with Signals() as signals, display:
        yield Session(spec, execution, directory, display, signals)
