"""purerl: policy-gradient agents on pure-JAX environments, many seeds in one compiled program.

Its names, listed in `__init__.pyi`, are imported when they are first used, so that `import purerl`
is quick and starts no backend: device counts can still be set after it.
"""

import functools

__version__ = "0.1.0"


@functools.cache
def _public_names() -> dict[str, str]:
    """The module that each public name comes from."""
    import ast
    from pathlib import Path

    listed = ast.parse(Path(__file__).with_suffix(".pyi").read_text()).body
    imports = [line for line in listed if isinstance(line, ast.ImportFrom)]
    return {alias.name: str(line.module) for line in imports for alias in line.names}


def __getattr__(name: str) -> object:
    if name == "__all__":
        return sorted(_public_names())
    if name.startswith("_") or name not in _public_names():
        raise AttributeError(f"module 'purerl' has no attribute {name!r}")

    import importlib

    # Kept: it is not asked for again.
    return globals().setdefault(name, getattr(importlib.import_module(_public_names()[name]), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_public_names()})
