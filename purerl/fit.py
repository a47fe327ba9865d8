"""Gradient steps on a batch: the one loop that fits either network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from purerl.carried import Carried, parameters, with_parameters
from purerl.sharding import spread_envs

Report = dict[str, Float[Array, ""]]


class Batch(eqx.Module):
    """The rows of a rollout that a loss is a mean over, and what was made of them."""

    obs: Float[Array, "batch *obs"]
    action: Shaped[Array, "batch *action"]
    log_prob: Float[Array, " batch"]
    value: Float[Array, " batch"]
    advantage: Float[Array, " batch"]
    value_target: Float[Array, " batch"]
    weight: Float[Array, " batch"]


class Fit(eqx.Module):
    """A network between two gradient steps."""

    parameters: PyTree
    opt_state: PyTree
    stopped: Bool[Array, ""]


def fit(
    network: Carried,
    opt_state: PyTree,
    batch: Batch,
    rows: Int[Array, "epochs steps rows"] | None,
    *,
    optimizer: optax.GradientTransformation,
    objective: Callable[[Any, Batch], tuple[Float[Array, ""], Report]],
    goes_on: Callable[[Report], Bool[Array, ""]],
    num_epochs: int,
) -> tuple[Carried, PyTree, Report]:
    """Take gradient steps for `num_epochs` on the minibatches of `rows`, or on the whole batch.

    A step is taken while `goes_on` holds of the report before it, and where there is any weight.

    **Returns:** the network, the state of its optimiser, and the report: means over the steps
    taken, NaN where there were none.
    """

    def step(now, rows):
        minibatch = batch
        if rows is not None:
            minibatch = spread_envs(jax.tree.map(lambda x: x[rows], batch), 0)

        def loss(parameters):
            return objective(with_parameters(network, parameters), minibatch)

        gradient, report = jax.grad(loss, has_aux=True)(now.parameters)
        report = report | {"grad_norm": optax.tree.norm(gradient)}
        stopped = now.stopped | ~goes_on(report)
        taken = ~stopped & jnp.any(minibatch.weight > 0)
        change, opt_state = optimizer.update(gradient, now.opt_state, now.parameters)
        stepped = Fit(eqx.apply_updates(now.parameters, change), opt_state, stopped)
        kept = Fit(now.parameters, now.opt_state, stopped)
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), stepped, kept)
        return after, (report, taken)

    start = Fit(parameters(network), opt_state, jnp.array(False))
    if rows is not None:
        rows = rows[:num_epochs].reshape(-1, rows.shape[-1])
    length = num_epochs if rows is None else len(rows)
    end, (reports, taken) = jax.lax.scan(step, start, rows, length=length)
    count = jnp.sum(taken)
    report = jax.tree.map(lambda x: jnp.sum(jnp.where(taken, x, 0)) / count, reports)
    return with_parameters(network, end.parameters), end.opt_state, report
