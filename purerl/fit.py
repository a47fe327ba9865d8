"""Gradient steps on a batch: the one loop that fits either network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from purerl.compute.mesh import spread_envs
from purerl.compute.rows import sum_rows
from purerl.losses import weighted_sum
from purerl.networks.network import Carried, parameters, with_parameters

Report = dict[str, Float[Array, ""]]
RowReport = dict[str, Float[Array, " batch"]]


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
    num_taken: Int[Array, ""]
    total: Float[Array, " metrics"]
    """The sum of the reports of all steps taken, in one array: each would be a kernel else."""


def fit(
    network: Carried,
    opt_state: PyTree,
    batch: Batch,
    rows: Int[Array, "epochs steps rows"] | None,
    *,
    optimizer: optax.GradientTransformation,
    objective: Callable[[Any, Batch], tuple[Float[Array, " batch"], RowReport]],
    goes_on: Callable[[Report], Bool[Array, ""]],
    num_epochs: int,
    prepare: Callable[[Batch], Batch] | None = None,
) -> tuple[Carried, PyTree, Report]:
    """Take gradient steps for `num_epochs` on the minibatches of `rows`, or on the whole batch.

    The objective and what is reported are of each row; their weighted means count. A step is taken
    while `goes_on` holds of the report before it, and where there is any weight. `prepare` is done
    to each minibatch first.

    **Returns:** the network, the state of its optimiser, and the report: means over the steps
    taken, NaN where there were none.
    """
    names = sorted(jax.eval_shape(objective, network, batch)[1])

    def step(now, rows):
        minibatch = batch
        if rows is not None:
            minibatch = spread_envs(jax.tree.map(lambda x: x[rows], batch), 0)
        minibatch = minibatch if prepare is None else prepare(minibatch)
        gradient, means = mean_gradient(now.parameters, network, minibatch, objective)
        stopped = now.stopped | ~goes_on(dict(zip(names, means, strict=True)))
        taken = ~stopped & jnp.any(minibatch.weight > 0)
        change, opt_state = optimizer.update(gradient, now.opt_state, now.parameters)
        grad_norm = jnp.linalg.norm(ravel_pytree(gradient)[0])
        stepped = Fit(
            parameters=eqx.apply_updates(now.parameters, change),
            opt_state=opt_state,
            stopped=stopped,
            num_taken=now.num_taken + 1,
            total=now.total + jnp.append(means, grad_norm),
        )
        kept = eqx.tree_at(lambda fit: fit.stopped, now, stopped)
        return jax.tree.map(lambda new, old: jnp.where(taken, new, old), stepped, kept), None

    start = Fit(
        parameters=parameters(network),
        opt_state=opt_state,
        stopped=jnp.array(False),
        num_taken=jnp.int32(0),
        total=jnp.zeros(len(names) + 1),
    )
    if rows is not None:
        rows = rows[:num_epochs].reshape(-1, rows.shape[-1])
    length = num_epochs if rows is None else len(rows)
    end, _ = jax.lax.scan(step, start, rows, length=length)
    means = end.total / end.num_taken
    report = dict(zip([*names, "grad_norm"], means, strict=True))
    return with_parameters(network, end.parameters), end.opt_state, report


def mean_gradient(
    parameters: PyTree,
    network: Carried,
    batch: Batch,
    objective: Callable[[Any, Batch], tuple[Float[Array, " batch"], RowReport]],
) -> tuple[PyTree, Float[Array, " report"]]:
    """The gradient of the objective's weighted mean over a batch, and the means of the report.

    Both are one vector where they are added up: an operation for all parameters, not for each.
    """
    mass = jnp.sum(batch.weight)
    share = batch.weight / jnp.where(mass > 0, mass, 1)

    def of_rows(rows):
        def total(parameters):
            of_each = objective(with_parameters(network, parameters), rows)
            return jax.tree.map(lambda x: weighted_sum(x, rows.weight), of_each)

        gradient, report = jax.grad(total, has_aux=True)(parameters)
        return ravel_pytree(gradient)[0], jnp.stack([report[name] for name in sorted(report)])

    gradient, means = sum_rows(of_rows, eqx.tree_at(lambda batch: batch.weight, batch, share))
    return ravel_pytree(parameters)[1](gradient), means
