"""The default optimiser.

Any hashable function of the same two arguments can take its place.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from purerl.compute.derivatives import norm, with_derivative_of


def clipped_adam(
    learning_rate: Float[Any, ""] | float, max_grad_norm: Float[Any, ""] | float
) -> optax.GradientTransformation:
    """Adam on gradients whose global norm is clipped to `max_grad_norm` (inf: not clipped).

    It works on all parameters as one vector: a few operations for all layers. `eps_root` is lost in
    rounding, but gives the square root a derivative where a gradient is 0.
    """
    adam = optax.adam(learning_rate, eps=1e-5, eps_root=1e-30)
    return optax.flatten(optax.chain(clip_by_norm(max_grad_norm), adam))


def clip_by_norm(max_norm: Float[Any, ""] | float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` of one vector, with a derivative also where that gives NaN."""

    def update(updates, state, params=None):
        del params
        return _clip(updates, max_norm), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _clip_apart(vector: Float[Array, " n"], max_norm: Float[Any, ""] | float) -> Float[Array, " n"]:
    """`_clip`, with nothing that is not finite in what is not taken."""
    length = norm(vector)
    is_short = length < max_norm
    length, bound = (jnp.where(is_short, 1, x) for x in (length, max_norm))
    return jnp.where(is_short, vector, vector / length * bound)


@with_derivative_of(_clip_apart)
def _clip(vector: Float[Array, " n"], max_norm: Float[Any, ""] | float) -> Float[Array, " n"]:
    length = norm(vector)
    return jnp.where(length < max_norm, vector, vector / length * max_norm)


class Optimizers(NamedTuple):
    """The optimisers of an agent's two networks."""

    policy: optax.GradientTransformationExtraArgs
    baseline: optax.GradientTransformationExtraArgs | None
