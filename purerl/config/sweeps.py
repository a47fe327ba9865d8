"""Many settings of one program: over traced hyperparameters and environment parameters."""

import builtins
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from purerl.checks import one_line, require_bool, require_positive_int
from purerl.config.config import Config, check_hyper, require_effect, warn_of_short_rollout


class Uniform(NamedTuple):
    """Values drawn evenly between two bounds."""

    low: float
    high: float


class LogUniform(NamedTuple):
    """Values whose logarithm is drawn evenly between two positive bounds."""

    low: float
    high: float


def sweep(
    config: Config, *, zip: bool = False, draws: int | None = None, root: int = 0, **values: Any
) -> tuple[Config, Config]:
    """Many settings as one batched config, and the axes to map it with.

    Each keyword is a hyperparameter, or `env_params.NAME` (through `**{...}`), with a sequence of
    values. The settings are every combination, the last keyword varying fastest; with `zip`, the
    values side by side; with `draws`, that many random settings, of which each value is drawn from
    its sequence, or from `purerl.Uniform` or `purerl.LogUniform`, by a generator seeded with
    `root`. Use it as `jax.vmap(purerl.train, (None, axes))(key, configs)`, or with
    `purerl.train_sweep`: all settings are one compile.

    **Returns:** `(configs, axes)`: swept leaves have a leading axis `[settings]`; `axes` holds 0
    for those and None for the others, as `jax.vmap`'s `in_axes` wants it.

    **Raises:** `ValueError` for a name that is not traced or without effect, no values, or a value
    out of range.
    """
    require_bool("zip", zip)
    if not values:
        raise ValueError("sweep takes at least one name=[values].")
    paths, structure = jax.tree.flatten_with_path(config)
    names = [_name(path) for path, _ in paths]
    for name in values:
        if name not in names:
            raise ValueError(f"{name} cannot be swept; use one of {', '.join(names)}.")
    require_effect(config, values)
    if draws is not None:
        require_positive_int("draws", draws)
        generator = np.random.default_rng(root)
        columns = {name: _drawn(name, values[name], draws, generator) for name in values}
    else:
        columns = {name: _sequence(name, value) for name, value in values.items()}
        columns = _side_by_side(columns) if zip else _combinations(columns)

    leaves = [
        _as_dtype(name, columns[name], np.asarray(leaf).dtype) if name in columns else leaf
        for name, (_, leaf) in builtins.zip(names, paths, strict=True)
    ]
    configs = jax.tree.unflatten(structure, leaves)
    axes = jax.tree.unflatten(structure, [0 if name in columns else None for name in names])
    check_hyper(configs.hyper)
    warn_of_short_rollout(configs)
    return configs, axes


def one_setting(configs: Config, axes: Config, setting: int = 0) -> Config:
    """One of the settings of a sweep, as a config of its own."""

    def pick(axis, leaf):
        return leaf if axis is None else leaf[setting]

    return jax.tree.map(pick, axes, configs, is_leaf=lambda axis: axis is None)


def swept_values(configs: Config, axes: Config) -> dict[str, np.ndarray]:
    """The values of each swept name, `[settings]`."""
    paths = jax.tree.leaves_with_path(configs)
    is_swept = jax.tree.leaves(axes, is_leaf=lambda axis: axis is None)
    return {
        _name(path): np.asarray(leaf)
        for (path, leaf), axis in zip(paths, is_swept, strict=True)
        if axis == 0
    }


def _sequence(name: str, column: Any) -> np.ndarray:
    if isinstance(column, Uniform | LogUniform):
        raise ValueError(f"{name} = {column} is to be drawn from; say how often with draws=.")
    if np.ndim(column) != 1 or np.size(column) == 0:
        raise ValueError(f"{name} = {one_line(column)} must be a sequence of at least one number.")
    array = np.asarray(column)
    if not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name} = {one_line(column)} must be numbers.")
    return array


def _combinations(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = builtins.zip(*itertools.product(*columns.values()), strict=True)
    return {name: np.asarray(row) for name, row in builtins.zip(columns, rows, strict=True)}


def _side_by_side(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"zip = True wants as many values of each name, but {given}.")
    return columns


def _drawn(name: str, value: Any, draws: int, generator: np.random.Generator) -> np.ndarray:
    if not isinstance(value, Uniform | LogUniform):
        return generator.choice(_sequence(name, value), draws)
    low, high = value
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"{name} = {value} must have finite bounds, the lower one first.")
    if isinstance(value, Uniform):
        return generator.uniform(low, high, draws)
    if low <= 0:
        raise ValueError(f"{name} = {value} must have bounds above 0.")
    return np.exp(generator.uniform(np.log(low), np.log(high), draws))


def _as_dtype(name: str, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The values in the dtype of the leaf that they replace; whole numbers where it holds those."""
    array = values.astype(dtype)
    if not np.issubdtype(dtype, np.floating) and not np.array_equal(array, values):
        raise ValueError(
            f"{name} = {one_line(np.unique(values).tolist())} does not fit its dtype {dtype}; "
            f"give values that it holds."
        )
    return array


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("hyper.")
