"""Modules that are imported when something is read from them."""

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any


class Later(types.ModuleType):
    """Stands for a module until an attribute of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def imported_later(*names: str) -> Iterator[None]:
    """Within this, modules that are imported by these names are only stood for.

    A module that is there already stays. Of a module of a package, name the package too.
    """
    stand_ins = {name: Later(name) for name in names if name not in sys.modules}
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
