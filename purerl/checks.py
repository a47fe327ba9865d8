"""Checks of single values. An error is one line that names the value and what to use instead."""

import contextlib
import json
import operator
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def divisors(number: int) -> list[int]:
    """The divisors of a number, in ascending order."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def ceil_div(number: int, divisor: int) -> int:
    """The quotient of two whole numbers, rounded up."""
    return -(-number // divisor)


def require_divisor(name: str, value: int, number_name: str, number: int) -> None:
    """Refuse a size that does not divide a number, and name the nearest that do."""
    if number % value == 0:
        return
    nearest = sorted(sorted(divisors(number), key=lambda d: abs(d - value))[:5])
    *others, last = map(str, nearest)
    use = f"{', '.join(others)} or {last}" if others else last
    raise ValueError(f"{number_name} = {number} is not divisible by {name} = {value}; use {use}.")


def short_repr(value: Any) -> str:
    """The repr of a value for an error message: one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def printable(text: str) -> str:
    """A text in which what a terminal would obey, such as an escape sequence, is written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_for_the_shell: list[bool] = []  # not empty while a command is carried out


@contextlib.contextmanager
def speaking_to_a_shell() -> Iterator[None]:
    """Within this, messages name the flags of the command line instead of arguments."""
    _for_the_shell.append(True)
    try:
        yield
    finally:
        _for_the_shell.pop()


def speaks_to_a_shell() -> bool:
    """Whether a message is read by somebody who has typed a command."""
    return bool(_for_the_shell)


def option(name: str, value: Any = True) -> str:
    """How to give an option: `seed_batch=32` in Python, `--seed-batch 32` in a shell."""
    if not speaks_to_a_shell():
        return f"{name}={value!r}"
    return f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")


def is_typed_key(value: Any) -> bool:
    """Whether a value is an array of typed keys, as `jax.random.key` makes them, or its shape."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def require_positive_int(name: str, value: Any) -> None:
    """Refuse a count that is not an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} = {short_repr(value)} must be a whole number of at least 1.")


def require_int32(name: str, value: Any) -> None:
    """Refuse a count that is not an int of at least 1, or that compiled code could not count to."""
    require_positive_int(name, value)
    if value >= 2**31:
        raise ValueError(f"{name} = {value} must be below 2**31, as it is counted in int32.")


def require_bool(name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {short_repr(value)} must be True or False.")


def require_sendable(env: Any, settings: Mapping[str, Any]) -> None:
    """Refuse what cannot be given to another process, as JSON."""
    if not isinstance(env, str):
        raise ValueError(
            f"env = {short_repr(env)} cannot be given to another process; use a name, or the "
            f"import path package.module:Name."
        )
    try:
        json.dumps(settings, default=operator.index)
    except TypeError:
        raise ValueError(
            f"settings = {short_repr(settings)} cannot be given to another process; "
            f"use numbers, names and tuples of them."
        ) from None


def seed_index(seed: Any, seed_ids: Sequence[int]) -> int:
    """The position of a seed among those of a run; refuse a seed that is not there."""
    if seed not in seed_ids:
        raise ValueError(
            f"seed = {short_repr(seed)} is not in this run; use one of {short_repr(seed_ids)}."
        )
    return seed_ids.index(seed)


def require_package(module: str, extra: str) -> None:
    """Refuse to go on without a package, and name the extra that installs it."""
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"{module} is not installed; install purerl[{extra}] or {module} for this."
        )
