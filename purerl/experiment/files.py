"""A run directory: what it says of a run, and how it is written, each file whole or not at all."""

import dataclasses
import functools
import hashlib
import json
import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

import purerl
from purerl.config import Config
from purerl.types import Metrics

HEADER = "config.json"
METRICS = "metrics.npz"
SUMMARY = "summary.json"


def describe(value: Any) -> Any:
    """A setting as JSON: numbers as they are, functions and classes by name, values by fields."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    if isinstance(value, functools.partial):
        return {"partial": describe(value.func), "args": describe([*value.args, value.keywords])}
    if isinstance(value, dict):
        return {str(key): describe(each) for key, each in value.items()}
    if hasattr(value, "_asdict"):
        return describe(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": _qualified_name(type(value)), **fields}
    if isinstance(value, list | tuple):
        return [describe(each) for each in value]
    if hasattr(value, "__qualname__"):
        return _qualified_name(value)
    return {"type": _qualified_name(type(value)), **describe(getattr(value, "__dict__", {}))}


def _qualified_name(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def make_header(config: Config, root: int, seed_ids: tuple[int, ...]) -> dict[str, Any]:
    """What determines a run, its fingerprint, and where it ran."""
    settings = {"config": describe(config), "root": root, "seeds": list(seed_ids)}
    text = json.dumps(settings, sort_keys=True)
    packages = ("jax", "jaxlib", "equinox", "optax", "gymnax", "numpy")
    device = jax.devices()[0]
    return {
        "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
        **settings,
        "env_steps": config.env_steps,
        "versions": {
            "purerl": purerl.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "device": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
        },
    }


def default_directory(config: Config, header: dict[str, Any]) -> Path:
    """`runs/ENV-ALGORITHM`, numbered from 2 on where another config lives there."""
    env = config.env
    name = f"{getattr(env, 'name', type(env).__name__)}-{config.algorithm.name}"
    number = 1
    while True:
        directory = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if _fingerprint(directory) in (None, header["fingerprint"]):
            return directory
        number += 1


def open_directory(directory: Path, header: dict[str, Any]) -> None:
    """Make a run directory and write its header.

    **Raises:** `ValueError` where the directory holds a run of another config; one of the same
    config is run anew, with the same result.
    """
    found = _fingerprint(directory)
    if found not in (None, header["fingerprint"]):
        raise ValueError(
            f"directory = {str(directory)!r} holds a run of another config "
            f"({found}, not {header['fingerprint']}); name another directory."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / HEADER, header)
    except OSError as error:
        raise ValueError(
            f"directory = {str(directory)!r} cannot be written: {error.strerror}; name another."
        ) from error


def _fingerprint(directory: Path) -> str | None:
    try:
        return json.loads((directory / HEADER).read_text()).get("fingerprint", "unknown")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return "an unreadable one"


def write_json(path: Path, value: Any) -> None:
    """Write JSON; numbers that are not finite become null."""
    text = json.dumps(_finite(value), indent=2) + "\n"
    _write_whole(path, lambda file: file.write(text.encode()))


def write_metrics(path: Path, metrics: Metrics, **others: np.ndarray) -> None:
    """Write each metric as an array `[seeds, records]` of one npz file, and others beside them."""
    arrays = {field.name: getattr(metrics, field.name) for field in dataclasses.fields(metrics)}
    everything: dict[str, Any] = arrays | others
    _write_whole(path, lambda file: np.savez(file, **everything))


def _write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
