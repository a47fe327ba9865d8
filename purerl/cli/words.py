"""How words of the command line are read and shown: numbers, switches, paths, settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

from purerl.config.settings import Otherwise, Setting

# Of a run. It is text until it is checked: as a path, "" would be the current directory.
Directory = Annotated[str, tyro.conf.arg(metavar="PATH")]


def _without_default(metavar: str) -> Any:
    """How to show an option whose text says what is done without it."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Count = Annotated[int | None, _without_default("INT")]
Counts = Annotated[tuple[int, ...] | None, _without_default("INT [INT ...]")]
Number = Annotated[float | None, _without_default("FLOAT")]
Text = Annotated[str | None, _without_default("STR")]
Folder = Annotated[str | None, _without_default("PATH")]
File = Annotated[Path | None, _without_default("PATH")]

REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def whole_numbers(info: Any) -> PrimitiveConstructorSpec | None:
    """An int, also written `1e6` or `2_000_000`."""
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole_number(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


def whole_number(word: str) -> int:
    """The int of a word such as `300`, `2_000_000` or `1e6`."""
    try:
        return int(word)
    except ValueError:
        number = float(word)
    if not number.is_integer():
        raise ValueError(f"{word} is no whole number")
    return int(number)


def number(word: str) -> int | float:
    """The number of a word: an int where it is written as one."""
    try:
        return int(word)
    except ValueError:
        return float(word)


@REGISTRY.primitive_rule
def switches(info: Any) -> PrimitiveConstructorSpec | None:
    """A bool that may be missing: by itself True."""
    if info.type is not bool:
        return None
    return PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[True|False]",
        instance_from_str=lambda words: _switch(words[0]) if words else True,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def _switch(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError(f"{word} is neither True nor False")
    return word.lower() == "true"


def as_option(setting: Setting, defaults: Mapping[str, Any]) -> Any:
    """The type of an option for a setting: its description, and its default of each algorithm."""
    kind, metavar = _KINDS[setting.type]
    by_text: dict[str, list[str]] = {}
    for algo, default in defaults.items():
        if default is not None and not isinstance(default, Otherwise):
            by_text.setdefault(as_typed(default), []).append(algo)
    most = max(by_text, key=lambda text: len(by_text[text]), default="")
    others = (f"; {', '.join(by_text[text])} {text}" for text in by_text if text != most)
    hint = f"(default: {most}{''.join(others)})" if by_text else ""
    shown = tyro.conf.arg(help=setting.text, metavar=metavar, help_behavior_hint=hint)
    return Annotated[kind | None, shown]


_KINDS: dict[Any, tuple[Any, str]] = {
    int: (int, "INT"),
    int | None: (int, "INT"),
    float: (float, "FLOAT"),
    bool: (bool, "[True|False]"),
    bool | None: (bool, "[True|False]"),
    tuple[int, ...]: (tuple[int, ...], "INT [INT ...]"),
    Mapping[str, str]: (tuple[str, ...], "[NAME=SHAPE ...]"),
    Any: (tuple[str, ...], "[NAME=NUMBER ...]"),
}


def as_typed(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={each}" for name, each in value.items()) or "none"
    return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
