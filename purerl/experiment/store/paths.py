"""The path of a run: refused where it is none, made absolute, and shown as a shell takes it."""

import os
import shlex
from itertools import starmap
from pathlib import Path
from typing import Any

from purerl.checks import option, speaks_to_a_shell

READ_RESULT = "purerl compare and purerl export read its result"
MAX_NAME = 255  # bytes of one part of a path, on any usual file system
MAX_PATH = 4096 - 128  # bytes of a whole one, with room for the names that a run writes


def as_directory(directory: str | Path, name: str = "directory") -> Path:
    """The directory of a run, as an absolute path: it stays where it is after `os.chdir`.

    **Raises:** `ValueError` where it is empty, has a control character, is not UTF-8 or too long.
    """
    text, problem = os.fspath(directory), None
    if not text:
        problem = "is no path"
    elif any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        problem = "has a newline or another control character"
    elif any("\ud800" <= letter <= "\udfff" for letter in text):
        problem = "is not UTF-8"
    elif any(len(part.encode()) > MAX_NAME for part in Path(text).parts):
        problem = f"has a part of more than {MAX_NAME} bytes"
    elif len(str(Path(text).absolute()).encode(errors="replace")) > MAX_PATH:
        problem = f"is a path of more than {MAX_PATH} bytes"
    if problem:
        shown_text = text if len(text) <= 80 else f"{text[:77]}..."
        raise ValueError(f"{name} = {shown_text!a} {problem}; name a directory.")
    return Path(text).absolute()


def shown(directory: Path) -> str:
    """A directory as a line shows it: from the current one on, where it lies below that."""
    try:
        text = str(directory.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # elsewhere, or the current one has been removed
        text = str(directory)
    return f"./{text}" if text.startswith("-") else text


def quoted(directory: Path) -> str:
    """A directory as a shell takes it."""
    return shlex.quote(shown(directory))


def train_command(directory: Path) -> str:
    """What starts a run."""
    return shlex.join(["purerl", "train", "--directory", shown(directory)])


def resume_command(directory: Path, **options: Any) -> str:
    """What goes on with a run: a command, but in Python, where there are options, a call."""
    given = list(starmap(option, options.items()))
    if given and not speaks_to_a_shell():
        return f"purerl.resume({', '.join([repr(shown(directory)), *given])})"
    return " ".join([shlex.join(["purerl", "resume", shown(directory)]), *given])
