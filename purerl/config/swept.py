"""Configs that hold many values of a setting, as a sweep makes them: which, and what is refused."""

from typing import Any

import jax
import numpy as np

from purerl.checks import short_repr


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a traced setting, by its path in a config: `discount`, `env_params.gravity`."""
    return jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("hyper.")


def swept_shapes(config: Any) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The traced settings that are not of the shape of one value: their shape, and that of one.

    Environment parameters count where their structure is that of the environment's default ones.
    """
    default_params = getattr(config.env, "default_params", None)
    shapes = [()] * len(jax.tree.leaves(config.hyper))
    if jax.tree.structure(default_params) == jax.tree.structure(config.env_params):
        shapes += map(np.shape, jax.tree.leaves(default_params))
    leaves = jax.tree.leaves_with_path(config)  # hyperparameters, then environment parameters
    return {
        leaf_name(path): (np.shape(leaf), shape)
        for (path, leaf), shape in zip(leaves, shapes, strict=False)
        if np.shape(leaf) != shape
    }


def first_setting(config: Any) -> Any:
    """The first setting of a sweep's config; any other config as it is."""
    shapes = swept_shapes(config)

    def first(path, leaf):
        actual, shape = shapes.get(leaf_name(path), ((), ()))
        return leaf[0] if actual and actual[1:] == shape else leaf

    return jax.tree.map_with_path(first, config) if shapes else config


def require_unbatched(config: Any) -> None:
    """Refuse a sweep's config that is not mapped: its values would broadcast over environments."""
    for name, (actual, shape) in swept_shapes(config).items():
        raise ValueError(
            f"{name} has shape {actual}, not {shape}: one value a setting of a sweep; "
            f"map over the settings: jax.vmap(purerl.train, (None, axes))(key, configs)."
        )


def require_same_sweep(before: Any, after: Any, settings: dict[str, Any]) -> None:
    """Refuse changes of a sweep's config after which the axes of the sweep would not fit it."""
    swept = swept_shapes(before)
    same = jax.tree.structure(before) == jax.tree.structure(after)
    if swept and not (same and swept == swept_shapes(after)):
        given = ", ".join(f"{name}={short_repr(value)}" for name, value in settings.items())
        raise ValueError(
            f"replace({given}) would leave a sweep over {', '.join(swept)} without fitting axes; "
            f"replace first: purerl.sweep(config.replace({given}), …)."
        )
