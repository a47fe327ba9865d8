"""purerl: policy-gradient agents on pure-JAX environments, many seeds in one compiled program.

Its names, listed in `__init__.pyi`, are imported when they are first used, so that `import purerl`
is quick and starts no backend: device counts can still be set after it.
"""

from typing import Any

__version__ = "0.1.0"


def _public_names() -> dict[str, str]:
    """The module that each public name comes from."""
    import ast
    from pathlib import Path

    listed = ast.parse(Path(__file__).with_suffix(".pyi").read_text()).body
    imports = [each for each in listed if isinstance(each, ast.ImportFrom)]
    return {name.name: str(each.module) for each in imports for name in each.names}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_public_names())
    module = None if name.startswith("_") else _public_names().get(name)
    if module is None:
        raise AttributeError(f"module 'purerl' has no attribute {name!r}")

    import importlib

    # Kept: it is not asked for again.
    return globals().setdefault(name, getattr(importlib.import_module(module), name))


def __dir__() -> list[str]:
    return [*globals(), *_public_names()]
