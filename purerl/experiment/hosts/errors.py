"""How a run ends early: with a line that says why, and how to go on."""


class RunError(RuntimeError):
    """A run that cannot go on, in one line; what was saved stands."""


class LostError(RunError):
    """A run of which another process has died."""


class Stopped(KeyboardInterrupt):
    """A run that a signal has stopped, after its state was saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def is_at_once(error: BaseException | None) -> bool:
    """Whether an error is a second Ctrl-C, after which nothing is waited for."""
    return isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped)
