"""What is computed in one way on a CPU, and in another on an accelerator."""

from collections.abc import Callable
from typing import Any

import jax


def by_platform(*args: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """`cpu(*args)` where that runs on a CPU, and `default(*args)` elsewhere.

    Only that one is traced where the mesh around the trace says which it is. Without a mesh both
    are, as by `jax.lax.platform_dependent`, and both once more wherever the code is mapped.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.lax.platform_dependent(*args, cpu=cpu, default=default)
    return (cpu if device.platform == "cpu" else default)(*args)
