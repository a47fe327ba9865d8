"""What surrounds a call: a mesh of the caller's, by `jax.set_mesh` or `jax.shard_map`, or a trace.

Nothing is spread over that mesh, whatever its axes are called: `Layout` says how an agent lies.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

Params = ParamSpec("Params")
Result = TypeVar("Result")


def in_any_mesh(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """A function of one agent, such that it can be called within any mesh.

    Environments are not written for explicit axes: within, they are automatic.

    **Raises:** `ValueError` within a `jax.shard_map` that checks what varies over its axes.
    """

    @functools.wraps(function)
    def call(*args: Params.args, **named: Params.kwargs) -> Result:
        arrays, static = eqx.partition((args, named), _is_array)
        _require_unchecked(arrays)

        def of_arrays(arrays: Any) -> Any:
            called: Any = function
            args, named = eqx.combine(arrays, static)
            return called(*args, **named)

        mesh = mesh_around(arrays)
        explicit = _axes(mesh, AxisType.Explicit)
        if not explicit:
            return of_arrays(arrays)
        automatic: Any = jax.sharding.auto_axes(of_arrays, axes=explicit, out_sharding=P())
        with jax.sharding.use_abstract_mesh(mesh):
            return automatic(arrays)

    return call


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _require_unchecked(arrays: Any) -> None:
    axes = sorted({axis for each in _types(arrays) for axis in each.mat.varying})
    if axes:
        names = ", ".join(map(repr, axes))
        raise ValueError(
            f"jax.shard_map checks what varies over {names}, of which the loops of environments "
            f"and optimisers say nothing; give it check_vma=False."
        )


def _types(arrays: Any) -> list[Any]:
    return [jax.typeof(leaf) for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array)]


def mesh_around(arrays: Any) -> AbstractMesh:
    """The caller's mesh, which may be empty: where none is set, that of explicit arrays."""
    mesh = jax.sharding.get_abstract_mesh()
    explicit = (each.sharding.mesh for each in _types(arrays) if mesh.empty)
    return next((each for each in explicit if _axes(each, AxisType.Explicit)), mesh)


def is_in_shard_map() -> bool:
    """Whether the caller is a device's share of a `jax.shard_map`."""
    return bool(_axes(jax.sharding.get_abstract_mesh(), AxisType.Manual))


def _axes(mesh: AbstractMesh, kind: AxisType) -> tuple[str, ...]:
    """The axes of a mesh that are of one kind."""
    pairs = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, each in pairs if each == kind)


@contextlib.contextmanager
def without_mesh() -> Iterator[None]:
    """Within this, there is no mesh of the caller's; not for what is traced."""
    if not jax.sharding.get_abstract_mesh().empty:
        with jax.set_mesh(None):
            yield
    else:  # as it is: any other setting would compile once more
        yield


def is_traced() -> bool:
    """Whether the caller is being traced, even where none of its arguments is."""
    return isinstance(jnp.zeros(()), Tracer)


def require_untraced(name: str) -> None:
    """Refuse to compile and to write files within a trace."""
    if is_traced():
        raise ValueError(
            f"{name} compiles by itself and writes files; call it outside of jax.jit, jax.vmap and "
            f"jax.shard_map, and within them purerl.train."
        )
