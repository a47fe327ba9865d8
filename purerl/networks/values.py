"""Values of the user's that equal others made of the same parts, here and in another process."""

import copyreg
import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from purerl.checks import short_repr


@dataclasses.dataclass(frozen=True)
class Partial:
    """A `functools.partial` that equals another of the same function and arguments.

    Configs that hold equal ones are one program. It is made of what a user gives.
    """

    function: Callable[..., Any] = dataclasses.field(compare=False)
    args: tuple[Any, ...] = dataclasses.field(compare=False)
    keywords: tuple[tuple[str, Any], ...] = dataclasses.field(compare=False)
    parts: tuple[Any, ...]
    """What is compared: numbers with their types, since 1 equals 1.0 and True."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.function(*self.args, *args, **{**dict(self.keywords), **keywords})


def by_value(name: str, value: Any) -> Any:
    """What a user gives for a setting, with each `functools.partial` as a `Partial`.

    **Raises:** `ValueError` where it holds arrays, or what is not hashable.
    """
    if isinstance(value, tuple) and hasattr(value, "_replace"):  # an algorithm
        return type(value)(*(by_value(name, item) for item in value))
    if not isinstance(value, functools.partial):
        return value
    function = by_value(name, value.func)
    args = tuple(by_value(name, arg) for arg in value.args)
    keywords = tuple((key, by_value(name, arg)) for key, arg in sorted(value.keywords.items()))
    named = {**{str(i): arg for i, arg in enumerate(args)}, **dict(keywords)}
    for key, arg in named.items():
        if any(isinstance(leaf, np.ndarray | jax.Array) for leaf in jax.tree.leaves(arg)):
            raise ValueError(
                f"{name} = {short_repr(value)}: its argument {key} holds an array, which two "
                f"configs cannot be compared by; give numbers, or read it within the function."
            )
        try:
            hash(arg)
        except TypeError:
            raise ValueError(
                f"{name} = {short_repr(value)}: its argument {key} is not hashable; give a tuple, "
                f"or a frozen dataclass."
            ) from None
    return Partial(function, args, keywords, (function, *map(_typed, named.items())))


def _typed(value: Any) -> Any:
    """What tells apart values that are equal, but of other types."""
    if isinstance(value, tuple):
        return tuple, tuple(map(_typed, value))
    return type(value), repr(value) if isinstance(value, float) else value


def _by_name(function: Any) -> Any:
    """Pickle a function that jax has wrapped by its name, as Python does its own functions."""
    try:
        named: Any = importlib.import_module(function.__module__)
        for part in function.__qualname__.split("."):
            named = getattr(named, part)
    except (AttributeError, ImportError, TypeError, ValueError):
        named = None
    return function.__qualname__ if named is function else function.__reduce_ex__(2)


# `jnp.tanh` and `jax.nn.relu`, which networks hold, would not be pickled, and copied to others.
for _type in (type(jax.jit(abs)), jax.custom_jvp, jax.custom_vjp):
    copyreg.pickle(_type, _by_name)  # pyright: ignore[reportArgumentType]
