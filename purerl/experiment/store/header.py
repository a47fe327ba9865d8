"""The header of a run directory: what determines the run, and where it was computed."""

import itertools
import json
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax

from purerl import __version__
from purerl.checks import printable, require_int32
from purerl.config.config import COUNTS, Config
from purerl.config.settings import Asked
from purerl.experiment.hosts.startup import count_cores, describe_cpu
from purerl.experiment.store import files
from purerl.experiment.store.files import CorruptFileError, read_checked_json
from purerl.experiment.store.fingerprint import (
    NAMED_PACKAGES,
    describe,
    describe_state,
    short_hash,
)
from purerl.experiment.store.identity import FORMAT, RUN, Identity, with_defaults
from purerl.experiment.store.paths import shown
from purerl.seeds import seed_ids

# Environment variables and settings of jax that change what is computed, or in which order.
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
FLAGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)
# With these a GPU adds in one order, and its compiler chooses nothing by measured speed.
DETERMINISTIC_FLAGS = "--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0"
MAX_DIFFERENCES = 6  # in one message


def make_header(
    kind: Literal["run", "sweep"],
    config: Config,
    root: int,
    ids: tuple[int, ...],
    identity: Identity,
    setting: Config | None = None,
    **decisions: Any,
) -> dict[str, Any]:
    """What determines a run or a sweep, and where it was computed.

    `setting` is one setting of a sweep's config; `decisions` are those outside the config.
    """
    return {
        **identity._asdict(),
        "kind": kind,
        "shapes": short_hash(describe_state(config if setting is None else setting)),
        "env": env_name(config),
        "config": describe(config),
        "asked": describe_asked(config.asked),
        "root": root,
        "seeds": list(ids),
        **decisions,
        "env_steps": config.env_steps,
        **runtime_info(),
    }


def describe_asked(asked: Asked) -> dict[str, Any]:
    """What a config was asked for, as JSON."""
    names = {name: sorted(getattr(asked, name)) for name in ("given", "preset", "follows")}
    return {"total_steps": asked.total_steps, **names}


def complete_header(what: str, header: dict[str, Any]) -> dict[str, Any]:
    """The header of a run with the defaults of what it lacks; it may be a stranger's.

    **Raises:** `CorruptFileError` where it is not one that a run writes.
    """
    header = with_defaults(what, "header", header)
    config = with_defaults(f"the config of {what}", "config", header["config"])
    header["config"] |= config  # a setting that is not known stays, and differs
    if not _is_of_a_run(header):
        raise CorruptFileError(f"{what} is not one that a run writes")
    return header


def _is_of_a_run(header: dict[str, Any]) -> bool:
    """Whether what stands in the fields of a header is what a run writes."""
    try:
        algo, flags, mesh = (header["config"]["algorithm"]["name"], header["flags"], header["mesh"])
        seed_ids(header["seeds"])
        return (
            RUN.fullmatch(header["run"]) is not None
            and header["resumptions"] >= 0
            and all(require_int32(name, header["config"][name]) is None for name in COUNTS)
            and all(isinstance(text, str) and text.isprintable() for text in (header["env"], algo))
            and require_int32("updates_per_chunk", header["updates_per_chunk"]) is None
            and isinstance(flags["XLA_FLAGS"], str | None)
            and isinstance(header["device"]["platform"], str)
            and (mesh is None or all(require_int32(axis, n) is None for axis, n in mesh.items()))
            and all(_is_part(part) for part in header["provenance"])
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _is_part(part: dict[str, Any]) -> bool:
    """Whether this is an entry of `provenance`."""
    kinds = {"first_update": int, "config": dict, "where": dict}
    return all(isinstance(part[name], kind) for name, kind in kinds.items())


def runtime_info() -> dict[str, Any]:
    """The versions, devices and flags that the bits of a result depend on."""
    device = jax.devices()[0]
    return {
        "versions": {
            "purerl": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in NAMED_PACKAGES if name != "purerl"},
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


def runtime_of(header: dict[str, Any]) -> dict[str, Any]:
    """The part of a header from `runtime_info`, without Python's version, which changes nothing."""
    versions = {key: value for key, value in header["versions"].items() if key != "python"}
    return {"versions": versions, **{name: header[name] for name in ("device", "cores", "flags")}}


def extend_provenance(
    header: dict[str, Any], config: dict[str, Any], where: dict[str, Any], start: int
) -> list[dict[str, Any]]:
    """The parts of a run that goes on after `start` updates, each with its settings and machine.

    The list is empty where all of it has the same. `header` is that of before, `config` and `where`
    are as `describe` and `where_of` say them now.
    """
    whole = [{"first_update": 0, "config": header["config"], "where": where_of(header)}]
    parts = [part for part in header["provenance"] or whole if part["first_update"] < start]
    now = {"first_update": start, "config": config, "where": where}
    if not parts or not changes_between(parts[-1], now):
        return parts if len(parts) > 1 else []
    return [*parts, now]


def where_of(header: dict[str, Any]) -> dict[str, Any]:
    """The part of a header that says on what a run was computed."""
    return runtime_of(header) | {name: header[name] for name in ("mesh", "seed_batch")}


def changes_between(part: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between two entries of `provenance`; a longer budget changes only schedules."""
    one, two = part["config"], other["config"]
    if not two.get("schedule"):
        one = one | {"num_updates": two.get("num_updates")}
    return diff(one, two) + diff(part["where"], other["where"])


def format_provenance(parts: Sequence[Mapping[str, Any]]) -> str | None:
    """`from update 35 hyper.discount: 0.99, now 0.5` for a run of several parts; None for one."""
    later = [
        f"from update {part['first_update']} {format_diff(changes_between(before, part))}"
        for before, part in itertools.pairwise(parts)
    ]
    return "; ".join(later) or None


def warn_if_nondeterministic(header: dict[str, Any]) -> None:
    """Warn where a run on a GPU lacks the flags to compute the same bits each time."""
    settings = (word.partition("=") for word in (header["flags"]["XLA_FLAGS"] or "").split())
    flags = {name: value for name, _, value in settings}

    def is_set(name: str) -> bool:
        return flags.get(f"--xla_gpu_{name}", "false").lower() in ("", "1", "true")

    is_stored = "--xla_gpu_load_autotune_results_from" in flags
    is_untimed = is_stored or flags.get("--xla_gpu_autotune_level") == "0"
    is_ordered = is_set("exclude_nondeterministic_ops")
    is_exact = is_set("deterministic_ops") or (is_ordered and is_untimed)
    if header["device"]["platform"] == "gpu" and not is_exact:
        warnings.warn(
            f"the result need not be bitwise that of a run which was not interrupted: on a GPU "
            f"that takes XLA_FLAGS='{DETERMINISTIC_FLAGS}' from the beginning.",
            stacklevel=3,
        )


def diff(header: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """The differences between two headers or parts of them, as in `device.count: 2, now 1`."""
    differences: list[str] = []
    if _is_unseen(header, other):
        warnings.warn(
            f"the source of {prefix.removesuffix('.')} is not there to compare, as after python "
            f"-c: by its name, {header['name']}, and by the shapes of the states it is the same.",
            stacklevel=4,
        )
        return []
    for name in dict.fromkeys((*header, *other)):
        before, after = header.get(name), other.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            differences += diff(before, after, f"{prefix}{name}.")
        elif before != after:
            differences.append(f"{prefix}{name}: {_short(before)}, now {_short(after)}")
    return differences


def _is_unseen(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether two descriptions are of definitions of one name, one of them without a source."""
    are_definitions = {"name", "code"} <= before.keys() & after.keys()
    return (
        are_definitions
        and before["name"] == after["name"]
        and (before.get("source") is None) != (after.get("source") is None)
    )


def unlike(first: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """The differences of two runs side by side, as in `env_params.gravity: 9.8 and 10.0`."""
    differences: list[str] = []
    for name in dict.fromkeys((*first, *other)):
        one, two = first.get(name), other.get(name)
        if isinstance(one, dict) and isinstance(two, dict):
            differences += unlike(one, two, f"{prefix}{name}.")
        elif one != two:
            rounded = [f"{x:.6g}" if isinstance(x, float) else x for x in (one, two)]
            one, two = rounded if rounded[0] != rounded[1] else (one, two)
            differences.append(f"{prefix}{name}: {_short(one)} and {_short(two)}")
    return differences


def format_diff(differences: list[str]) -> str:
    """Write differences in one line."""
    rest = len(differences) - MAX_DIFFERENCES
    return "; ".join(differences[:MAX_DIFFERENCES] + [f"and {rest} more"] * (rest > 0))


def _short(value: Any) -> str:
    text = "none" if value is None else printable(str(value))
    return text if len(text) <= 40 else text[:37] + "..."


def env_name(config: Config) -> str:
    """The name of the environment, or of its class."""
    return getattr(config.env, "name", type(config.env).__name__)


def find_header(directory: Path) -> dict[str, Any] | None:
    """Read the header in a directory; None where there is none, empty where it is damaged.

    That of a sweep, and of another format, is as it stands there.
    """
    try:
        header = read_checked_json(directory / files.HEADER)
        if header.get("kind") == "run" and header.get("format") == FORMAT:
            return complete_header(shown(directory / files.HEADER), header)
        is_known = header.get("format") != FORMAT or RUN.fullmatch(str(header.get("run")))
        return header if header.get("kind") in ("run", "sweep") and is_known else {}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except CorruptFileError:
        return {}


def through_json(value: Any) -> Any:
    """A value as it is read back from JSON."""
    return json.loads(json.dumps(files.to_jsonable(value)))
