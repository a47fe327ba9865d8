"""The header of a run directory: what determines the run, and where it was computed."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import purerl
from purerl.config import Config
from purerl.experiment import files
from purerl.experiment.cores import count_cores
from purerl.experiment.describe import PACKAGES, describe, digest, fingerprint, shapes
from purerl.experiment.signed import DamagedError, read_signed

# Flags that change what is computed, or in which order.
FLAGS = ("XLA_FLAGS", "JAX_DEFAULT_PRNG_IMPL", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION")


def make_header(
    config: Config,
    root: int,
    seed_ids: tuple[int, ...],
    one: Config | None = None,
    **how: Any,
) -> dict[str, Any]:
    """What determines a run, its fingerprint, and where it was computed.

    `one` is one of the settings, where `config` is a sweep's; `how` names what the config does not
    say, such as the length of a chunk.
    """
    return {
        "fingerprint": fingerprint(config, one),
        "shapes": digest(shapes(config if one is None else one)),
        "env": env_name(config),
        "config": describe(config),
        "root": root,
        "seeds": list(seed_ids),
        **how,
        "env_steps": config.env_steps,
        **surroundings(),
    }


def surroundings() -> dict[str, Any]:
    """What the bits of a result depend on besides the run itself."""
    device = jax.devices()[0]
    return {
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
        "cores": count_cores(),
        "flags": {name: os.environ[name] for name in FLAGS if name in os.environ},
    }


def machine_of(header: dict[str, Any]) -> dict[str, Any]:
    """The part of a header that `surroundings` gave; Python's own version changes no result."""
    versions = {name: each for name, each in header["versions"].items() if name != "python"}
    return {"versions": versions, **{name: header[name] for name in ("device", "cores", "flags")}}


def differences(header: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between two values of a header, each as `jax: 0.10.2, now 0.11.0`."""
    found = []
    for name in dict.fromkeys((*header, *other)):
        before, after = header.get(name), other.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after)
        elif before != after:
            found.append(f"{name}: {_short(before)}, now {_short(after)}")
    return found


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def same_run(header: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two headers are of the same agents: equal config, root and seeds."""
    return all(header.get(name) == other.get(name) for name in ("fingerprint", "root", "seeds"))


def default_directory(config: Config, header: dict[str, Any], suffix: str = "") -> Path:
    """`runs/ENV-ALGORITHM`, numbered from 2 on where another run lives there."""
    name = f"{env_name(config)}-{config.algorithm.name}{suffix}"
    number = 1
    while True:
        directory = Path("runs") / (name if number == 1 else f"{name}-{number}")
        found = find_header(directory)
        if found is None or same_run(found, header):
            return directory
        number += 1


def env_name(config: Config) -> str:
    """The environment's own name, or its class's."""
    return getattr(config.env, "name", type(config.env).__name__)


def find_header(directory: Path) -> dict[str, Any] | None:
    """The header in a directory; None where there is none, empty where it is damaged."""
    try:
        return read_signed(directory / files.HEADER)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedError:
        return {}


def require_same_run(directory: Path, header: dict[str, Any]) -> None:
    """Refuse a directory that holds another run.

    **Raises:** `ValueError` where it does.
    """
    found = find_header(directory)
    if found is not None and not same_run(found, header):
        raise ValueError(
            f"directory = {str(directory)!r} holds another run "
            f"(of config {found.get('fingerprint', 'unreadable')}, not {header['fingerprint']}, "
            f"or of other seeds); name another directory."
        )
