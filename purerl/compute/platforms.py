"""What is computed in one way on a CPU, and in another on an accelerator."""

from collections.abc import Callable
from typing import Any

import jax


def by_platform(*args: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """`cpu(*args)` for a CPU, `default(*args)` for all else; both return the same shapes.

    The mesh around the trace says which it is, and the program is for its platform alone: the other
    way is not traced. Without a mesh both are, and the one is taken for which the program is
    lowered, as by `jax.lax.platform_dependent`.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.lax.platform_dependent(*args, cpu=cpu, default=default)
    return (cpu if device.platform == "cpu" else default)(*args)
