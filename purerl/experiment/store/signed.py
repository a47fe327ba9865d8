"""JSON that tells whether it is as it was written."""

import hashlib
import json
from pathlib import Path
from typing import Any

from purerl.experiment.store import files


class DamagedError(Exception):
    """A file is not what was written: torn, emptied, or changed."""


def write_signed(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with the SHA-256 of its content."""
    text = _text(files.plain_numbers(content))
    files.write_whole(path, lambda file: file.write(text.encode()))


def read_signed(path: Path) -> dict[str, Any]:
    """Read what `write_signed` wrote.

    **Raises:** `FileNotFoundError`, or `DamagedError` where a byte differs from what was written.
    """
    try:
        text = path.read_text()
        content = json.loads(text)
        del content["sha256"]
        sound = text == _text(content)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path.name} cannot be read") from error
    if not sound:
        raise DamagedError(f"{path.name} is not as it was written")
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({"sha256": digest, **content}, indent=2) + "\n"
