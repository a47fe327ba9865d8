"""The environments of gymnax, imported without what draws them.

A suite has two functions: `names`, and `make`, which takes one of them.
"""

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

# What gymnax draws with.
PLOTTING = ("matplotlib", "matplotlib.colors", "matplotlib.pyplot", "seaborn")


def names() -> tuple[str, ...]:
    """The names that gymnax registers, sorted."""
    return tuple(sorted(_import_gymnax().registered_envs))


def make(name: str, **options: Any) -> Any:
    """Make a registered environment."""
    return _import_gymnax().make(name, **options)[0]


def _import_gymnax() -> Any:
    # Imported here: it starts the backend. What it draws with takes a second, and can wait.
    with lazily_imported(*PLOTTING):
        import gymnax

    return gymnax


class LazyModule(types.ModuleType):
    """Stands for a module until an attribute of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def lazily_imported(*names: str) -> Iterator[None]:
    """Within this, modules that are imported by these names are only stood for.

    A module that is there already stays. Of a module of a package, name the package too.
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
