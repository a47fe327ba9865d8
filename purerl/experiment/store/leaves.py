"""The states in a checkpoint: leaves stored by number, with names, dtypes and shapes beside them.

A name is never a key: `{"a.b": x}` and `{"a": {"b": x}}` are two leaves in any store.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from purerl.checks import is_typed_key
from purerl.experiment.store import files

STATES = "states.npz"  # what one process writes
MARK = "purerl_updates"  # the first array in it, by which it is known


def describe_leaves(states: PyTree) -> list[list[Any]]:
    """Name, dtype and shape of every leaf, as JSON."""
    return [
        [jax.tree_util.keystr(path), str(leaf.dtype), list(leaf.shape)]
        for path, leaf in jax.tree.leaves_with_path(states)
    ]


def leaves_to_save(states: PyTree) -> list[np.ndarray | jax.Array]:
    """The leaves as NumPy arrays, typed keys as their numbers.

    Arrays on a device are copied, as the next chunk overwrites them. Arrays that are spread over
    several processes stay there.
    """

    def saveable(leaf: Any) -> np.ndarray | jax.Array:
        data = jax.random.key_data(leaf) if is_typed_key(leaf) else leaf
        is_here = isinstance(data, jax.Array) and data.is_fully_addressable
        return np.array(data) if is_here else data

    return [saveable(leaf) for leaf in jax.tree.leaves(states)]


def restore_leaves(stored: Sequence[np.ndarray], described: list[list[Any]], like: PyTree) -> Any:
    """The states from their leaves, which `describe_leaves` has described.

    **Raises:** `ValueError` where their names, dtypes or shapes are not those of `like`.
    """
    expected, structure = describe_leaves(like), jax.tree.structure(like)
    if described != expected or len(stored) != len(expected):
        pairs = zip(described, expected, strict=False)
        first = next((f"{a} and not {b}" for a, b in pairs if a != b), "another number of them")
        raise ValueError(f"the states of the checkpoint do not fit the config: {first}.")
    pairs = zip(stored, jax.tree.leaves(like), strict=True)
    return jax.tree.unflatten(structure, [_restored(array, leaf) for array, leaf in pairs])


def _restored(array: Any, like: Any) -> Any:
    if is_typed_key(like):
        return jax.random.wrap_key_data(array, impl=like.dtype._impl)
    return array if array.dtype == like.dtype else array.view(like.dtype)


def write_leaves(path: Path, updates: int, leaves: Sequence[Any]) -> str:
    """Write leaves into one npz file; return the SHA-256 of what was to be written."""
    numbered = {str(number): _as_known(leaf) for number, leaf in enumerate(leaves)}
    return files.write_arrays(path, {MARK: np.array(updates), **numbered})


def read_leaves(path: Path) -> list[np.ndarray]:
    """Read what `write_leaves` wrote, in order.

    **Raises:** `OSError` where it cannot be opened, `ValueError` where it is damaged.
    """
    arrays = files.read_arrays(path)
    arrays.pop(MARK, None)
    try:
        return [arrays[str(number)] for number in range(len(arrays))]
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it has no array {error}") from error


def _as_known(leaf: np.ndarray) -> np.ndarray:
    """An array of a dtype that npz knows: others, such as bfloat16, as integers of their size."""
    return leaf if leaf.dtype.isbuiltin == 1 else leaf.view(f"u{leaf.dtype.itemsize}")


def first_difference(stored: Sequence[Any], expected: Sequence[Any]) -> int | None:
    """The number of the first leaf that is not bit for bit as expected; None where all are."""
    if len(stored) != len(expected):
        return min(len(stored), len(expected))
    for number, (array, other) in enumerate(zip(stored, expected, strict=True)):
        if array.shape != other.shape or array.tobytes() != other.tobytes():
            return number
    return None
