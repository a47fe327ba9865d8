"""Where loggers write: each at a place of its own, and over no other run's log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from purerl.experiment.logging.loggers import LOGGERS
from purerl.experiment.store.paths import shown


def require_own_places(hooks: Sequence[Any], directory: Path, run: str) -> None:
    """Refuse loggers that would write to one place, or over what is not this run's.

    **Raises:** `ValueError` that names the place.
    """
    taken: set[Path] = set()
    for hook in hooks:
        if type(hook) not in LOGGERS.values():
            continue
        place = hook.place(directory)
        if place.resolve() in taken:
            raise ValueError(
                f"hooks: two loggers write to {shown(place)!r}; give each a place of its own."
            )
        taken.add(place.resolve())
        problem = hook.why_not_free(place, run)
        if problem is not None:
            raise ValueError(
                f"hooks: {type(hook).__name__} would write over {shown(place)!r}, {problem}; "
                f"give it another place, or move that away."
            )
