"""Hooks as a header describes them, and what is made of that description when a run goes on."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from purerl.checks import speaks_to_a_shell
from purerl.experiment.logging.loggers import LOGGERS, WeightsAndBiases

PATH_ARGUMENTS = {"jsonl": "path", "tensorboard": "directory"}  # the argument that says where


def describe_hooks(hooks: Sequence[Any]) -> list[dict[str, Any]]:
    """Hooks as JSON, for `rebuild_loggers`: loggers with their arguments, others by name."""
    return [_describe(hook) for hook in hooks]


def _describe(hook: Any) -> dict[str, Any]:
    for name, logger_type in LOGGERS.items():
        if type(hook) is logger_type:
            return {"logger": name, "arguments": hook.arguments}
    return {"function": getattr(hook, "__name__", type(hook).__name__)}


def rebuild_loggers(described: Sequence[Any], directory: Path) -> list[Any]:
    """The loggers of a resumed run that write into its directory.

    The directory may be a stranger's: what sends, and what writes elsewhere, is not made from its
    header. A warning says how to give it again, with the others, in whose place come those that are
    given; and it names the functions, which are not called.
    """
    hooks = [hook for hook in described if isinstance(hook, dict)]
    known = [hook for hook in hooks if str(hook.get("logger")) in LOGGERS]
    loggers = [_rebuild(hook, directory, known) for hook in known]
    functions = [str(hook["function"]) for hook in hooks if "function" in hook]
    if functions:
        _warn(
            f"hooks that the run had before are not called any more: {', '.join(functions)}; "
            f"give all of them again{', in Python' * speaks_to_a_shell()}, as hooks=."
        )
    return [logger for logger in loggers if logger is not None]


def _rebuild(hook: dict[str, Any], directory: Path, known: Sequence[dict[str, Any]]) -> Any:
    """A logger from its description; None, with a warning, for one that has to be given again.

    **Arguments:** `known` are the descriptions of all loggers.
    """
    name, arguments = hook["logger"], _arguments(hook)
    logger_type, per_seed = LOGGERS[name], arguments.get("per_seed") is True
    if name not in PATH_ARGUMENTS:
        _warn(
            f"the logger {name} sends what it gets, and is not taken from the directory; give it "
            f"again: {_on_a_shell(known) if speaks_to_a_shell() else _in_python(known)}."
        )
        return None
    place = arguments.get(PATH_ARGUMENTS[name])
    if place is None:
        return logger_type(per_seed=per_seed)
    real = Path(os.path.realpath(str(place).replace("\0", "?")))
    if real.is_relative_to(os.path.realpath(directory)):
        return logger_type(str(real), per_seed=per_seed)
    _warn(
        f"the logger {name} wrote to {str(place)!r}, outside of the run, and is left out; "
        f"give it again{' in Python' * speaks_to_a_shell()}: {_in_python(known)}."
    )
    return None


def _arguments(hook: dict[str, Any]) -> dict[str, Any]:
    arguments = hook.get("arguments")
    return arguments if isinstance(arguments, dict) else {}


def _on_a_shell(known: Sequence[dict[str, Any]]) -> str:
    """The flags that give all loggers again."""
    per_seed = any(_arguments(hook).get("per_seed") is True for hook in known)
    names = dict.fromkeys(hook["logger"] for hook in known)
    return " ".join(["--log", *names] + ["--log-seeds"] * per_seed)


def _in_python(known: Sequence[dict[str, Any]]) -> str:
    """The argument that gives all loggers again."""
    calls = []
    for hook in known:
        name, arguments = hook["logger"], _arguments(hook)
        place = arguments.get(PATH_ARGUMENTS.get(name, ""))
        given = [] if place is None else [repr(str(place))]
        given += ["per_seed=True"] * (arguments.get("per_seed") is True)
        calls.append(f"purerl.{LOGGERS[name].__name__}({', '.join(given)})")
    return f"hooks=[{', '.join(calls)}]"


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)


def take_over_projects(hooks: Sequence[Any], described: Sequence[Any]) -> tuple[Any, ...]:
    """Hooks that are given again, those of Weights & Biases with the project of before."""
    projects = [
        hook["arguments"]["project"]
        for hook in described
        if isinstance(hook, dict) and isinstance(hook.get("arguments"), dict)
        if isinstance(hook["arguments"].get("project"), str)
    ]

    def with_project(hook: Any) -> Any:
        if type(hook) is not WeightsAndBiases or "project" in hook.settings or not projects:
            return hook
        return WeightsAndBiases(per_seed=hook.per_seed, project=projects[0], **hook.settings)

    return tuple(map(with_project, hooks))
