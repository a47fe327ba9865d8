"""Why a network cannot be called: it is, on one observation alone, without a state or a key."""

import inspect
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax

ALONE = "but is called on an observation alone"


def call_problem(made: Any) -> str | None:
    """What a network that cannot be called needs besides an observation, and what would do.

    None where that is not the reason. `made` is what a factory made.
    """
    for part in _parts(made):
        name = type(part).__name__
        if isinstance(part, eqx.nn.State) or _has_state_index(part):
            return (
                f"its {name} keeps a state between calls, {ALONE}; use a layer without a state, "
                f"such as eqx.nn.LayerNorm, or normalize_obs=True."
            )
        if isinstance(part, eqx.nn.Dropout) and not part.inference and part.p != 0:
            return (
                f"its {name} takes a key at each call, {ALONE}; leave it out, or give "
                f"eqx.nn.Dropout(inference=True)."
            )
    needed = _needed_arguments(made)
    if not needed:
        return None
    return (
        f"its __call__ needs {', '.join(needed)} too, {ALONE}; give a module that needs no more "
        f"than that: eqx.nn.LayerNorm in place of a norm with a state, and no dropout."
    )


def lacks_argument(error: Exception) -> bool:
    """Whether an error of a call says that a state or a key was not given."""
    says = str(error)
    return (isinstance(error, TypeError) and "argument" in says) or "requires a key" in says


def _parts(tree: Any) -> Iterator[Any]:
    """A pytree, and the trees within it."""
    yield tree
    for child in jax.tree.leaves(tree, is_leaf=lambda node: node is not tree):
        if child is not tree:
            yield from _parts(child)


def _has_state_index(part: Any) -> bool:
    fields = vars(part) if isinstance(part, eqx.Module) else {}
    return any(isinstance(value, eqx.nn.StateIndex) for value in fields.values())


def _needed_arguments(module: Any) -> list[str]:
    """The arguments without a default of a module's call, behind the observation."""
    try:
        parameters = [*inspect.signature(module).parameters.values()]
    except (TypeError, ValueError):
        return []
    return [
        parameter.name
        for parameter in parameters[1:]
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
