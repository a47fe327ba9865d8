"""The default optimiser, and the two optimisers of an agent.

Any hashable function of the same two arguments can take its place.
"""

from typing import Any, NamedTuple

import optax
from jaxtyping import Float

from purerl.config.config import Config


def clipped_adam(
    learning_rate: Float[Any, ""] | float, max_grad_norm: Float[Any, ""] | float
) -> optax.GradientTransformation:
    """Adam on gradients whose global norm is clipped to `max_grad_norm` (inf: not clipped).

    It works on all parameters as one vector: a few operations for all layers.
    """
    return optax.flatten(
        optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate, eps=1e-5))
    )


class Optimizers(NamedTuple):
    """The optimisers of an agent's two networks."""

    policy: optax.GradientTransformation
    baseline: optax.GradientTransformation


def build_optimizers(config: Config) -> Optimizers:
    """Both optimisers, rebuilt from the traced hyperparameters: only their states are carried."""
    hyper = config.hyper
    return Optimizers(
        policy=config.optimizer(hyper.policy_learning_rate, hyper.max_grad_norm),
        baseline=config.optimizer(hyper.baseline_learning_rate, hyper.max_grad_norm),
    )
