"""Environments by name: those of gymnax, and importable ones as `package.module:Name`."""

import difflib
import functools
import importlib
from typing import Any

from jaxtyping import PyTree

from purerl.envs import gymnax
from purerl.envs.contract import one_line


def env_names() -> tuple[str, ...]:
    """The names of gymnax's environments, sorted."""
    return gymnax.names()


def make_env(name: str, **kwargs: Any) -> tuple[Any, PyTree]:
    """Make an environment by name, and its default parameters (None where it has none).

    A name is one of gymnax's, or the import path `package.module:Name` of a class, a function or
    an object. Keyword arguments go to whatever makes the environment. Equal calls return the same
    object, so that they never retrace.

    **Raises:** `ValueError` for a name that is not known, with the nearest ones.
    """
    if name.startswith(":") or name.endswith(":"):
        raise ValueError(f"env = {name!r} is no import path; name it package.module:Name.")
    try:
        env = _make(name, tuple(sorted(kwargs.items())))
    except TypeError as error:
        raise ValueError(f"env = {name!r} cannot be made of {kwargs}: {error}") from error
    return env, getattr(env, "default_params", None)


@functools.cache
def _make(name: str, kwargs: tuple[tuple[str, Any], ...]) -> Any:
    env = _import(name, dict(kwargs)) if ":" in name else _registered(name, dict(kwargs))
    _made.setdefault(id(env), (env, name, kwargs))
    return env


# What `_make` has made: it keeps them, so that none takes the id of another.
_made: dict[int, tuple[Any, str, tuple[tuple[str, Any], ...]]] = {}


def made_by_name(env: Any) -> tuple[str, dict[str, Any]] | None:
    """The arguments with which `make_env` has made an environment; None where it did not."""
    _, name, kwargs = _made.get(id(env), (None, None, ()))
    return None if name is None else (name, dict(kwargs))


def _registered(name: str, kwargs: dict[str, Any]) -> Any:
    known = env_names()
    if name not in known:
        by_lower = {known_name.lower(): known_name for known_name in known}
        matches = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.4)
        nearest = ", ".join(by_lower[match] for match in matches) or "one of " + ", ".join(known)
        raise ValueError(
            f"env = {name!r} is not known; did you mean {nearest}? "
            f"An environment of your own is named package.module:Name."
        )
    return gymnax.make(name, **kwargs)


def _import(path: str, kwargs: dict[str, Any]) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        imported = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(
            f"env = {path!r} cannot be imported: {one_line(error)}; name it "
            f"package.module:Name, with the package on the Python path."
        ) from error
    is_factory = isinstance(imported, type) or not hasattr(imported, "reset")
    return imported(**kwargs) if is_factory else imported
