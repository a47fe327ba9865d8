"""The environments of gymnax, imported without its plotting libraries.

A suite has two functions: `names`, and `make`, which takes one of the names.
"""

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

# Modules that gymnax imports, and that only its drawing needs.
PLOTTING = ("matplotlib", "matplotlib.colors", "matplotlib.pyplot", "seaborn")
DOWNLOADING = ("MNISTBandit-bsuite",)  # when they are made


def names() -> tuple[str, ...]:
    """The names that gymnax registers, sorted."""
    return tuple(sorted(_import_gymnax().registered_envs))


def make(name: str, **options: Any) -> Any:
    """Make a registered environment."""
    return _import_gymnax().make(name, **options)[0]


def _import_gymnax() -> Any:
    # Imported here: it starts the backend. The plotting libraries would take another second.
    with lazily_imported(*PLOTTING):
        import gymnax

    return gymnax


class LazyModule(types.ModuleType):
    """Stands in for a module, and imports it when an attribute is read."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def lazily_imported(*names: str) -> Iterator[None]:
    """Within this, importing these modules gives stand-ins for them.

    Modules that are already imported stay. For a submodule, name its package too.
    """
    stand_ins = {name: LazyModule(name) for name in names if name not in sys.modules}
    for name, module in stand_ins.items():
        package, _, child = name.rpartition(".")
        if package in stand_ins:
            setattr(stand_ins[package], child, module)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
