"""A run directory: what it says of a run, and how it is written, each file whole or not at all."""

import dataclasses
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
from purerl.experiment.describe import PACKAGES, describe, fingerprint
from purerl.types import Metrics

HEADER = "config.json"
METRICS = "metrics.npz"
PARTIAL_METRICS = "metrics.partial.npz"
SUMMARY = "summary.json"


def make_header(
    config: Config,
    root: int,
    seed_ids: tuple[int, ...],
    one: Config | None = None,
    **how: int | None,
) -> dict[str, Any]:
    """What determines a run, its fingerprint, and where it ran.

    `one` is one of the settings, where `config` is a sweep's; `how` names what changes a run's bits
    but not its config, such as the length of a chunk.
    """
    device = jax.devices()[0]
    return {
        "fingerprint": fingerprint(config, one),
        "config": describe(config),
        "root": root,
        "seeds": list(seed_ids),
        **how,
        "env_steps": config.env_steps,
        "versions": {
            "purerl": purerl.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES if name != "purerl"},
        },
        "device": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
        },
    }


def same_run(header: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two headers are of the same agents: equal config, root and seeds."""
    return all(header.get(name) == other.get(name) for name in ("fingerprint", "root", "seeds"))


def default_directory(config: Config, header: dict[str, Any], suffix: str = "") -> Path:
    """`runs/ENV-ALGORITHM`, numbered from 2 on where another run lives there."""
    name = f"{env_name(config)}-{config.algorithm.name}{suffix}"
    number = 1
    while True:
        directory = Path("runs") / (name if number == 1 else f"{name}-{number}")
        found = _read_header(directory)
        if found is None or same_run(found, header):
            return directory
        number += 1


def env_name(config: Config) -> str:
    """The environment's own name, or its class's."""
    return getattr(config.env, "name", type(config.env).__name__)


def open_directory(directory: Path, header: dict[str, Any]) -> None:
    """Make a run directory and write its header.

    A run of the same config, root and seeds that is there already is run anew; what it left stands
    until the new one is done.

    **Raises:** `ValueError` where the directory holds another run.
    """
    found = _read_header(directory)
    if found is not None and not same_run(found, header):
        fingerprint = found.get("fingerprint", "an unreadable one")
        raise ValueError(
            f"directory = {str(directory)!r} holds another run "
            f"(of config {fingerprint}, not {header['fingerprint']}, or of other seeds); "
            f"name another directory."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if found is None:
            write_json(directory / HEADER, header)
    except OSError as error:
        raise ValueError(
            f"directory = {str(directory)!r} cannot be written: {error.strerror}; name another."
        ) from error


def _read_header(directory: Path) -> dict[str, Any] | None:
    """The header in a directory; None where there is none, empty where it cannot be read."""
    try:
        header = json.loads((directory / HEADER).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


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
    if isinstance(value, np.ndarray | np.generic):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value
