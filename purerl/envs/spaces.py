"""Spaces of observations and actions, in one form for all environments."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from purerl.checks import short_repr

NO_BOUND = 1e38  # a bound from here on means none: float32 ends at 3.4e38


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The integers 0 … n − 1."""

    n: int

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"{self} has no element; a space has at least one.")

    def __str__(self) -> str:
        return f"Discrete({self.n})"

    @property
    def shape(self) -> tuple[int, ...]:
        return ()


@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """Arrays of a shape, between two bounds (each a number or an array of that shape)."""

    low: Any
    high: Any
    shape: tuple[int, ...]

    def __post_init__(self):
        if 0 in self.shape:
            raise ValueError(f"{self} has no element; a space has at least one.")
        if isinstance(self.low, Tracer) or isinstance(self.high, Tracer):
            return
        if not np.all(np.less_equal(self.low, self.high)):  # NaN is not less either
            raise ValueError(
                f"{self} has low = {short_repr(self.low)} and high = {short_repr(self.high)}; low "
                f"must not be above high, and neither NaN."
            )

    def __str__(self) -> str:
        return f"Box({', '.join(map(str, self.shape))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    @property
    def is_bounded(self) -> bool:
        """Whether every bound is finite."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    @property
    def in_units(self) -> "Box":
        """The box as a policy acts in it: bounds are −1 and 1, and infinite where there is none."""
        low, high = np.isfinite(self.low), np.isfinite(self.high)
        return Box(np.where(low, -1.0, -np.inf), np.where(high, 1.0, np.inf), self.shape)

    def _value(self) -> tuple[Any, ...]:
        bounds = (np.asarray(x, np.float32) for x in (self.low, self.high))
        return self.shape, *(np.broadcast_to(x, self.shape).tobytes() for x in bounds)


Space = Discrete | Box


def as_space(space: Any) -> Space:
    """Read a space of gymnax, gymnasium or purerl by its attributes, not by its class.

    A bound of ±1e38 or beyond, such as the largest float32, is read as none. Bounds may be traced.

    **Raises:** `ValueError` for anything that is neither discrete nor a box.
    """
    if hasattr(space, "n") and np.ndim(space.n) == 0:
        return Discrete(int(space.n))
    if all(hasattr(space, name) for name in ("low", "high", "shape")):
        return Box(_bound(space.low), _bound(space.high), tuple(space.shape))
    raise ValueError(
        f"{space!r} is a {type(space).__name__}; use a space with n (discrete), "
        f"or one with low, high and shape (a box)."
    )


def _bound(bound: Any) -> Any:
    xp = jnp if isinstance(bound, Tracer) else np
    bound = xp.asarray(bound)
    return xp.where(xp.abs(bound) >= NO_BOUND, xp.copysign(xp.inf, bound), bound)  # NaN stays
