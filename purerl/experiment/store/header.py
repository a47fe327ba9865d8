"""The header of a run directory: what determines the run, and where it was computed."""

import json
import os
import platform
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax

from purerl import __version__
from purerl.config.config import Config
from purerl.experiment.hosts.startup import count_cores, describe_cpu
from purerl.experiment.store import files
from purerl.experiment.store.files import DamagedError, read_signed
from purerl.experiment.store.fingerprint import PACKAGES, describe, digest, fingerprint, shapes

# Settings of jax, and variables, that change what is computed, or in which order.
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
FLAGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)
# With these a GPU adds in one order, and its compiler chooses nothing by how fast it was just then.
EXACT_FLAGS = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"
MOST = 6  # differences that are told


def make_header(
    kind: Literal["run", "sweep"],
    config: Config,
    root: int,
    seed_ids: tuple[int, ...],
    setting: Config | None = None,
    **how: Any,
) -> dict[str, Any]:
    """What determines a run, its fingerprint, and where it was computed.

    `setting` is one of the settings, where `config` is a sweep's; `how` names what the config does
    not say, such as the length of a chunk.
    """
    return {
        "kind": kind,
        "fingerprint": fingerprint(config, setting),
        "shapes": digest(shapes(config if setting is None else setting)),
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
            "purerl": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES if name != "purerl"},
        },
        "device": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
            **(describe_cpu() if device.platform == "cpu" else {}),
            **({"processes": jax.process_count()} if jax.process_count() > 1 else {}),
        },
        "cores": count_cores(),
        "flags": {
            **{name: os.environ.get(name) for name in VARIABLES},
            **{name: getattr(jax.config, name) for name in FLAGS},
        },
    }


def machine_of(header: dict[str, Any]) -> dict[str, Any]:
    """The part of a header that `surroundings` gave; Python's own version changes no result."""
    versions = {name: each for name, each in header["versions"].items() if name != "python"}
    return {"versions": versions, **{name: header[name] for name in ("device", "cores", "flags")}}


def warn_where_inexact(header: dict[str, Any]) -> None:
    """Warn of a run on a GPU that was not told to compute the same bits each time."""
    words = (header["flags"]["XLA_FLAGS"] or "").split()
    flags = {name: value for name, _, value in (word.partition("=") for word in words)}

    def is_set(name: str) -> bool:
        return flags.get(f"--xla_gpu_{name}", "false").lower() in ("", "1", "true")

    stored = "--xla_gpu_load_autotune_results_from" in flags
    untimed = stored or flags.get("--xla_gpu_autotune_level") == "0"
    exact = is_set("deterministic_ops") or (is_set("exclude_nondeterministic_ops") and untimed)
    if header["device"]["platform"] == "gpu" and not exact:
        warnings.warn(
            f"the result need not be bitwise that of a run which was not interrupted: on a GPU "
            f"that takes XLA_FLAGS='{EXACT_FLAGS}' from the beginning.",
            stacklevel=3,
        )


def differences(header: dict[str, Any], other: dict[str, Any], within: str = "") -> list[str]:
    """What differs between two values of a header, each as `device.count: 2, now 1`."""
    found: list[str] = []
    for name in dict.fromkeys((*header, *other)):
        before, after = header.get(name), other.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{within}{name}.")
        elif before != after:
            found.append(f"{within}{name}: {_short(before)}, now {_short(after)}")
    return found


def list_differences(found: list[str]) -> str:
    """Differences in one line."""
    more = [f"and {len(found) - MOST} more"] if len(found) > MOST else []
    return "; ".join(found[:MOST] + more)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


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


def as_json(value: Any) -> Any:
    """A value as it is read back from JSON."""
    return json.loads(json.dumps(files.plain_numbers(value)))
