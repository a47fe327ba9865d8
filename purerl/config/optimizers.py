"""The default optimiser. Another is any hashable function of the same two arguments."""

from typing import Any

import optax
from jaxtyping import Float

from purerl.config.config import Config


def clipped_adam(
    learning_rate: Float[Any, ""] | float, max_grad_norm: Float[Any, ""] | float
) -> optax.GradientTransformation:
    """Adam on gradients whose global norm is clipped to `max_grad_norm` (inf: not clipped).

    All parameters are one vector in it: a few operations for all layers, not for each.
    """
    return optax.flatten(
        optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate, eps=1e-5))
    )


def optimizers(config: Config) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The policy's and the baseline's optimiser, rebuilt from the traced hyperparameters."""
    hyper = config.hyper
    return (
        config.optimizer(hyper.policy_learning_rate, hyper.max_grad_norm),
        config.optimizer(hyper.baseline_learning_rate, hyper.max_grad_norm),
    )
