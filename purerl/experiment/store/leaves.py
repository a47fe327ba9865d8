"""The states in a checkpoint: leaves stored by number, with names, dtypes and shapes beside them.

A name is never a key: `{"a.b": x}` and `{"a": {"b": x}}` are two leaves in any store. Each process
writes one file, with the pieces of leaves that it holds.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from purerl.checks import is_typed_key
from purerl.experiment.hosts.processes import is_main_process
from purerl.experiment.store import files
from purerl.experiment.store.identity import MARK, Identity

STATES = re.compile(r"states(\.[1-9][0-9]*)?\.npz")  # the files that hold them
PIECE = re.compile(r"([0-9]+)@((?:[0-9]+,)*)")  # the name of an array in them


class Piece(NamedTuple):
    """A part of a leaf: its number, where the part begins along each axis, and the numbers."""

    leaf: int
    begin: tuple[int, ...]
    array: np.ndarray

    @property
    def index(self) -> tuple[slice, ...]:
        """Where it lies in the whole leaf."""
        sides = zip(self.begin, self.array.shape, strict=True)
        return tuple(slice(begin, begin + size) for begin, size in sides)


def states_name(process: int) -> str:
    """The name of the file that a process writes."""
    return f"states.{process}.npz" if process else "states.npz"


def describe_leaves(states: PyTree) -> list[list[Any]]:
    """Name, dtype and shape of every leaf, as JSON."""
    return [
        [jax.tree_util.keystr(path), str(leaf.dtype), list(leaf.shape)]
        for path, leaf in jax.tree.leaves_with_path(states)
    ]


def own_pieces(states: PyTree) -> list[Piece]:
    """Copy from the devices what this process writes: of what several hold, one of them does.

    The next chunk overwrites the arrays on the devices.
    """
    pieces = []
    for number, leaf in enumerate(jax.tree.leaves(states)):
        data = jax.random.key_data(leaf) if is_typed_key(leaf) else leaf
        if isinstance(data, jax.Array) and not data.is_fully_addressable:
            shards = [shard for shard in data.addressable_shards if shard.replica_id == 0]
            begins = [tuple(side.start or 0 for side in shard.index) for shard in shards]
            arrays = [np.array(shard.data) for shard in shards]
            pieces += map(Piece, [number] * len(shards), begins, arrays)
        elif is_main_process():
            whole = np.array(data) if isinstance(data, jax.Array) else np.asarray(data)
            pieces.append(Piece(number, (0,) * whole.ndim, whole))
    return pieces


def write_pieces(path: Path, identity: Identity, pieces: Iterable[Piece]) -> str:
    """Write pieces into one npz file; return the SHA-256 of what was to be written."""
    named = {
        f"{piece.leaf}@" + "".join(f"{begin}," for begin in piece.begin): _as_known(piece.array)
        for piece in pieces
    }
    return files.write_arrays(path, {**identity.arrays(), **named})


def read_pieces(path: Path) -> list[Piece]:
    """Read what `write_pieces` wrote.

    **Raises:** `OSError` where it cannot be opened, `ValueError` where it is damaged.
    """
    arrays = files.read_arrays(path)
    arrays.pop(MARK, None)
    return [_named_piece(path, name, array) for name, array in arrays.items()]


def _named_piece(path: Path, name: str, array: np.ndarray) -> Piece:
    match = PIECE.fullmatch(name)
    begin = () if match is None else tuple(map(int, match[2].split(",")[:-1]))
    if match is None or len(begin) != array.ndim:
        raise ValueError(f"{path} is damaged: {name!r} is no piece of a leaf")
    return Piece(int(match[1]), begin, array)


def read_leaves(folder: Path, shapes: Sequence[Any]) -> list[np.ndarray]:
    """Read the whole leaves of the given shapes from the files of all processes.

    **Raises:** `OSError` where one cannot be opened, `ValueError` where one is damaged or missing.
    """
    leaves: list[np.ndarray | None] = [None] * len(shapes)
    missing = [math.prod(leaf.shape) for leaf in shapes]
    for path in states_files(folder):
        for piece in read_pieces(path):
            if piece.leaf >= len(shapes):
                raise ValueError("the states of the checkpoint do not fit the config: too many.")
            shape = shapes[piece.leaf].shape
            if piece.array.shape == shape:  # all of it
                leaves[piece.leaf] = piece.array
            else:
                whole = leaves[piece.leaf]
                leaves[piece.leaf] = whole = (
                    np.empty(shape, piece.array.dtype) if whole is None else whole
                )
                whole[piece.index] = piece.array
            missing[piece.leaf] -= piece.array.size
    found = [leaf for leaf in leaves if leaf is not None]
    if any(missing) or len(found) != len(shapes):
        raise ValueError("the states of the checkpoint do not fit the config: some are missing.")
    return found


def states_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that hold states."""
    return sorted(path for path in folder.iterdir() if STATES.fullmatch(path.name))


def stored_shapes(states: PyTree) -> list[Any]:
    """The shapes and dtypes of what is stored of the leaves: typed keys are numbers."""
    return [
        jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        if is_typed_key(leaf)
        else leaf
        for leaf in jax.tree.leaves(states)
    ]


def restore_leaves(stored: Sequence[np.ndarray], like: PyTree) -> Any:
    """The states from their leaves, of the structure and dtypes of `like`."""
    pairs = zip(stored, jax.tree.leaves(like), strict=True)
    return jax.tree.unflatten(jax.tree.structure(like), [_restored(*pair) for pair in pairs])


def require_described(described: list[list[Any]], like: PyTree) -> None:
    """Refuse states that `describe_leaves` has described in another way than those of `like`."""
    expected = describe_leaves(like)
    if described != expected:
        pairs = zip(described, expected, strict=False)
        first = next((f"{a} and not {b}" for a, b in pairs if a != b), "another number of them")
        raise ValueError(f"the states of the checkpoint do not fit the config: {first}.")


def _restored(array: Any, like: Any) -> Any:
    if is_typed_key(like):
        return jax.random.wrap_key_data(array, impl=like.dtype._impl)
    return array if array.dtype == like.dtype else array.view(like.dtype)


def _as_known(array: np.ndarray) -> np.ndarray:
    """An array of a dtype that npz knows: others, such as bfloat16, as integers of their size."""
    return array if array.dtype.isbuiltin == 1 else array.view(f"u{array.dtype.itemsize}")


def first_difference(leaves: Sequence[np.ndarray], pieces: Sequence[Piece]) -> int | None:
    """The number of the first leaf that does not hold a piece bit for bit; None where all do."""
    for piece in pieces:
        if leaves[piece.leaf][piece.index].tobytes() != piece.array.tobytes():
            return piece.leaf
    return None
