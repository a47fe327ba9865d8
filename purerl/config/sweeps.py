"""Sweeps: many settings of one program, over hyperparameters and environment parameters.

`experiment/sweep_runner.py` trains them, `experiment/report/sweep_ranking.py` ranks them.
"""

import builtins
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from purerl.checks import require_bool, require_positive_int, short_repr
from purerl.config.components import check_hyper
from purerl.config.config import Config
from purerl.config.effects import require_used
from purerl.config.fields import as_dtype
from purerl.config.swept import leaf_name, swept_shapes
from purerl.envs import spec_in_force


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
    values. The settings are every combination, the last keyword varying fastest. With `zip`, they
    are the values side by side. With `draws`, they are so many random ones: each value is drawn
    from its sequence, from `purerl.Uniform` or from `purerl.LogUniform`, by a generator seeded with
    `root`. Use it as `jax.vmap(purerl.train, (None, axes))(key, configs)`, or with
    `purerl.train_sweep`: all settings compile once.

    **Returns:** `(configs, axes)`: swept leaves have a leading axis `[settings]`; `axes` holds 0
    for those and None for the others, as `jax.vmap`'s `in_axes` wants it.

    **Raises:** `ValueError` for a name that is not traced or has no effect, for no values, and for
    a value out of range.
    """
    require_bool("zip", zip)
    if not values:
        raise ValueError("sweep takes at least one name=[values].")
    already = swept_shapes(config)
    if already:
        raise ValueError(
            f"config is a sweep's, over {', '.join(already)}; give all names to one purerl.sweep."
        )
    paths, structure = jax.tree.flatten_with_path(config)
    names = [leaf_name(path) for path, _ in paths]
    for name in values:
        if name not in names:
            raise ValueError(f"{name} cannot be swept; use one of {', '.join(names)}.")
    require_used(config, values)
    if draws is not None:
        require_positive_int("draws", draws)
        generator = np.random.default_rng(root)
        columns = {name: _sample(name, values[name], draws, generator) for name in values}
    else:
        columns = {name: _sequence(name, value) for name, value in values.items()}
        columns = _zipped(columns) if zip else _grid(columns)

    leaves = [
        as_dtype(name, columns[name], np.asarray(leaf).dtype) if name in columns else leaf
        for name, (_, leaf) in builtins.zip(names, paths, strict=True)
    ]
    configs = jax.tree.unflatten(structure, leaves)
    axes = jax.tree.unflatten(structure, [0 if name in columns else None for name in names])
    check_hyper(configs.hyper)
    if any(name.startswith("env_params.") for name in columns):
        spec = config.env_spec
        for setting in range(len(next(iter(columns.values())))):
            spec_in_force(config.env, setting_at(configs, axes, setting).env_params, spec)
    return configs, axes


def setting_at(configs: Config, axes: Config, setting: int = 0) -> Config:
    """One setting of a sweep, as a config of its own."""

    def take_setting(axis, leaf):
        return leaf if axis is None else leaf[setting]

    return jax.tree.map(take_setting, axes, configs, is_leaf=lambda axis: axis is None)


def swept_values(configs: Config, axes: Config) -> dict[str, np.ndarray]:
    """The values of each swept name, `[settings]`."""
    paths = jax.tree.leaves_with_path(configs)
    axis_leaves = jax.tree.leaves(axes, is_leaf=lambda axis: axis is None)
    pairs = zip(paths, axis_leaves, strict=True)
    return {leaf_name(path): np.asarray(leaf) for (path, leaf), axis in pairs if axis == 0}


def _sequence(name: str, column: Any) -> np.ndarray:
    if isinstance(column, Uniform | LogUniform):
        raise ValueError(
            f"{name} = {column} is a distribution; give the number of settings, draws=16."
        )
    if np.ndim(column) != 1 or np.size(column) == 0:
        raise ValueError(
            f"{name} = {short_repr(column)} must be a sequence of at least one number."
        )
    array = np.asarray(column)
    if not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name} = {short_repr(column)} must be numbers.")
    return array


def _grid(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = builtins.zip(*itertools.product(*columns.values()), strict=True)
    return {name: np.asarray(row) for name, row in builtins.zip(columns, rows, strict=True)}


def _zipped(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        actual = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"zip = True needs the same number of values for each name, but {actual}.")
    return columns


def _sample(name: str, value: Any, draws: int, generator: np.random.Generator) -> np.ndarray:
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
