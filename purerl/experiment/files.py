"""The files of a run directory, each written whole or not at all."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

HEADER = "config.json"
METRICS = "metrics.npz"
SUMMARY = "summary.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON; numbers that are not finite become null."""
    text = json.dumps(_finite(value), indent=2) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name into one npz file."""
    everything: dict[str, Any] = dict(arrays)
    write_whole(path, lambda file: np.savez(file, **everything))


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside its place and move it there: a crash leaves what was there before."""
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value
