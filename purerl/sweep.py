"""Many settings of one program: a grid over traced hyperparameters and environment parameters."""

import itertools
from typing import Any

import jax
import numpy as np

from purerl.config import Config, check_hyper, one_line


def sweep(config: Config, **values: Any) -> tuple[Config, Config]:
    """A grid of settings as one batched config, and the axes to map it with.

    Each keyword is a hyperparameter, or `env_params.NAME` (through `**{...}`), with a sequence of
    values; the grid takes every combination, the last keyword varying fastest. Use it as
    `jax.vmap(purerl.train, (None, axes))(key, configs)`: all settings are one compile.

    **Returns:** `(configs, axes)`: swept leaves have a leading axis `[settings]`; `axes` holds 0
    for those and None for the others, as `jax.vmap`'s `in_axes` wants it.

    **Raises:** `ValueError` for a name that is not traced, no values, or a value out of range.
    """
    if not values:
        raise ValueError("sweep takes at least one name=[values].")
    paths, structure = jax.tree.flatten_with_path(config)
    names = [_name(path) for path, _ in paths]
    for name, column in values.items():
        if name not in names:
            raise ValueError(f"{name} cannot be swept; use one of {', '.join(names)}.")
        if np.ndim(column) != 1 or np.size(column) == 0:
            raise ValueError(
                f"{name} = {one_line(column)} must be a sequence of at least one number."
            )
        if not np.issubdtype(np.asarray(column).dtype, np.number):
            raise ValueError(f"{name} = {one_line(column)} must be numbers.")
    grid = dict(zip(values, zip(*itertools.product(*values.values()), strict=True), strict=True))

    leaves = [
        np.asarray(grid[name], np.asarray(leaf).dtype) if name in grid else leaf
        for name, (_, leaf) in zip(names, paths, strict=True)
    ]
    configs = jax.tree.unflatten(structure, leaves)
    axes = jax.tree.unflatten(structure, [0 if name in grid else None for name in names])
    check_hyper(configs.hyper)
    return configs, axes


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("hyper.")
