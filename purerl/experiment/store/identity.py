"""Whose a file is and how it is read: its run, its format and its fields, checked in one place.

Every file of a run has its identity within its first bytes, in the words of `Identity.text`: JSON
among its first fields, arrays as their first array, a picture in its metadata.
"""

import json
import re
import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from purerl.checks import printable
from purerl.experiment.store import files
from purerl.experiment.store.files import CorruptFileError

FORMAT = 6  # of what a run leaves; it moves where older files can no longer be read
MARK = "purerl"  # the name under which arrays and pictures hold an identity
BEGINNING = 1024  # bytes of a file in which it stands
RUN = re.compile("[0-9a-f]{16}")  # its id
WRITTEN = re.compile(
    rf'"run": "({RUN.pattern})",\s*"resumptions": (\d{{1,9}}),\s*"format": (\d{{1,9}})\b'.encode()
)


class Identity(NamedTuple):
    """The run that has written a file, how often it had gone on by then, and the file's format."""

    run: str
    resumptions: int = 0
    format: int = FORMAT

    @classmethod
    def new(cls) -> "Identity":
        """The identity of a run that begins."""
        return cls(secrets.token_hex(8))

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Identity":
        """That of a file by its fields."""
        return cls(content["run"], content["resumptions"], content["format"])

    def text(self) -> str:
        """As it stands in a file."""
        return json.dumps(self._asdict())

    def arrays(self) -> dict[str, np.ndarray]:
        """The first array of a file of arrays."""
        return {MARK: np.frombuffer(self.text().encode(), np.uint8)}


def identity_of(path: Path) -> Identity | None:
    """The identity in a file by how it begins; None where a run has not written that beginning."""
    try:
        with files.open_regular(path) as file:
            match = WRITTEN.search(file.read(BEGINNING))
    except OSError:
        return None
    return Identity(match[1].decode(), int(match[2]), int(match[3])) if match else None


class Field(NamedTuple):
    """The kinds that a field may have, and what it is where a file lacks it."""

    kinds: Any
    default: Any = ...

    @property
    def is_required(self) -> bool:
        """Whether a file cannot lack it."""
        return self.default is ...


def _required(kinds: Any, *names: str) -> dict[str, Field]:
    return dict.fromkeys(names, Field(kinds))


IDENTITY = {**_required(str, "run"), **_required(int, "resumptions", "format")}
# By what a file is. A field that is added gets a default here, and older files are still read.
FIELDS: dict[str, dict[str, Field]] = {
    "header": {
        **IDENTITY,
        **_required(str, "kind", "shapes", "env"),
        **_required(int, "root", "updates_per_chunk", "evaluation_episodes", "cores", "env_steps"),
        **_required(dict, "config", "asked", "versions", "device", "flags"),
        **_required(list, "seeds"),
        **dict.fromkeys(
            ("seed_batch", "evaluate_every", "checkpoint_every"), Field(int | None, None)
        ),
        "keep_checkpoints": Field(int, 2),
        "target_return": Field(int | float | None, None),
        "mesh": Field(dict | None, None),
        "hooks": Field(list, []),
        "provenance": Field(list, []),
    },
    "config": {
        **_required(dict, "hyper"),
        **_required(int, "num_envs", "rollout_length", "num_updates", "epochs", "baseline_epochs"),
        **_required(int, "num_minibatches", "log_every"),
        **_required(int | None, "lookahead"),
        **_required(bool, "normalize_advantage", "normalize_obs", "normalize_reward"),
        **_required(list, "schedule"),
        **_required(object, "type", "env_params", "env", "algorithm", "policy", "baseline"),
        **_required(object, "policy_optimizer", "baseline_optimizer"),
    },
    "checkpoint": {
        **IDENTITY,
        **_required(int, "updates"),
        **_required(dict, "header", "records", "files"),
        **_required(list, "leaves"),
        "was_read_back": Field(bool, False),
    },
    "summary": {
        **IDENTITY,
        **_required(int, "updates", "resumed_at", "num_updates"),
        **_required(list, "seeds"),
        **_required(dict, "times"),
        **_required(bool, "greedy"),
        **_required(str, "metrics"),
        **dict.fromkeys(
            (
                *("episode_return", "solved", "target_return", "num_near_target", "num_seeds"),
                *("failed_seeds", "seeds_without_episode", "env_steps", "steps_per_second"),
                "num_unfinished",
            ),
            Field(object, None),  # for who looks at it
        ),
    },
    "policy": {
        **dict.fromkeys(("run", "resumptions"), Field(str | int | None, None)),
        **_required(int, "format"),
        **_required(bool, "normalize_obs"),
        **_required(dict, "obs_space", "action_space"),
        **_required(object, "policy"),
        **dict.fromkeys(("purerl", "env"), Field(str, "")),
    },
}


def require_readable(what: str, content: Mapping[str, Any], readable: int = FORMAT) -> None:
    """Refuse what another version of purerl has written in another format."""
    if content.get("format") != readable:
        raise ValueError(
            f"{what} was saved by another version of purerl, in format {content.get('format', 1)}; "
            f"this version reads format {readable}: use that version, or train anew."
        )


def with_defaults(what: str, kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a file, with the defaults of those that it lacks; a line names unknown ones.

    **Arguments:** `kind` is one of `FIELDS`.

    **Raises:** `CorruptFileError` where a field is missing, or of a kind that no run writes.
    """
    fields = FIELDS[kind]
    for name, field in fields.items():
        if name not in content and field.is_required:
            raise CorruptFileError(f"{what} has no {name}")
        if name in content and not isinstance(content[name], field.kinds):
            raise CorruptFileError(f"{what} has a {name} that no run writes")
    unknown = [printable(str(name)) for name in content if name not in fields]
    if unknown:
        warnings.warn(
            f"{what} has fields that this version does not know: {', '.join(unknown)}.",
            stacklevel=3,
        )
    defaults = {name: field.default for name, field in fields.items() if not field.is_required}
    return defaults | {name: content[name] for name in content if name in fields}
