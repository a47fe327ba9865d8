"""Settings written as TOML."""

import json
from collections.abc import Mapping
from typing import Any

from purerl.checks import printable
from purerl.config.optimizers import clipped_adam


def to_toml(env: str, algo: str, settings: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """An environment, an algorithm and settings as TOML, each with where it comes from.

    **Raises:** `ValueError` for what only Python can hold.
    """
    lines, tables = [f"env = {_value('env', env)}", f"algo = {_value('algo', algo)}"], []
    for name, value in settings.items():
        if value is clipped_adam:  # what it is without
            continue
        if isinstance(value, Mapping):
            tables += ["", f"[{name}]  # {printable(sources[name])}"]
            tables += [f"{key} = {_value(f'{name}.{key}', each)}" for key, each in value.items()]
        else:
            lines.append(f"{name} = {_value(name, value)}  # {printable(sources[name])}")
    return "\n".join([*lines, *tables]) + "\n"


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):  # also inf and nan, as TOML has them
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(name, each) for each in value)}]"
    raise ValueError(
        f"{name} is a {type(value).__name__}, which TOML cannot hold; leave out --toml, or {name}."
    )
