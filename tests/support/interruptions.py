"""Runs that end before their end."""

from purerl.experiment.loop import TrainingLoop


class Interrupted(Exception):
    """What a test stops a run with."""


def interrupt_after(updates, monkeypatch):
    """Let a run die when a chunk has ended, before anything is kept of it."""
    record = TrainingLoop._record

    def stop(self, now):
        if now.updates > updates:
            raise Interrupted
        record(self, now)

    monkeypatch.setattr(TrainingLoop, "_record", stop)
