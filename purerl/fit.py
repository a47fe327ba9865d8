"""Gradient steps on a batch: the one loop that fits either network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from purerl.compute.derivatives import mean, norm
from purerl.compute.mesh import ALONE, Layout
from purerl.compute.rows import sum_rows, take_rows
from purerl.compute.trees import tree_where
from purerl.losses import weighted_sum
from purerl.networks.network import Network, parameters, with_parameters

Report = dict[str, Float[Array, ""]]
RowReport = dict[str, Float[Array, " batch"]]


class Batch(eqx.Module):
    """The transitions of a rollout as rows, with their values, targets and weights."""

    obs: Float[Array, "batch *obs"]
    action: Shaped[Array, "batch *action"]
    log_prob: Float[Array, " batch"]
    value: Float[Array, " batch"]
    advantage: Float[Array, " batch"]
    value_target: Float[Array, " batch"]
    weight: Float[Array, " batch"]


class FitSettings(NamedTuple):
    """What a network is fitted to, and how.

    `objective(network, batch)` gives the loss and the report of each row, of which weighted means
    count; `loss(report)` is the mean loss, for optimisers that look at it. The fit stops before the
    first step for which `keep_going(report)` is false. `preprocess` is applied to each minibatch.
    """

    objective: Callable[[Any, Batch], tuple[Float[Array, " batch"], RowReport]]
    optimizer: optax.GradientTransformationExtraArgs
    loss: Callable[[Report], Float[Array, ""]]
    num_epochs: int
    keep_going: Callable[[Report], Bool[Array, ""]] | None = None
    preprocess: Callable[[Batch], Batch] | None = None
    layout: Layout = ALONE


class FitState(eqx.Module):
    """A network between two gradient steps."""

    parameters: PyTree
    opt_state: PyTree
    stopped: Bool[Array, ""]
    num_counted: Int[Array, ""]
    total: Float[Array, " metrics"]
    """The summed reports of the minibatches that count, in one array: one kernel for all metrics.

    They are those of all steps taken, and that at which the fit stopped."""


def fit(
    network: Network,
    opt_state: PyTree,
    batch: Batch,
    rows: Int[Array, "epochs steps rows"] | None,
    settings: FitSettings,
) -> tuple[Network, PyTree, Report]:
    """Take gradient steps on the minibatches of `rows`, or on the whole batch, for some epochs.

    A minibatch without any weight is skipped.

    **Returns:** the network, the state of its optimiser, and the report: means over the minibatches
    of the steps taken and that at which the fit stopped, NaN where there were none; and `steps`,
    the number of steps taken.
    """
    names = sorted(jax.eval_shape(settings.objective, network, batch)[1])

    def step(state, rows):
        minibatch = batch if rows is None else take_rows(batch, rows, settings.layout)
        return gradient_step(state, network, minibatch, settings, names), None

    start = FitState(
        parameters=parameters(network),
        opt_state=opt_state,
        stopped=jnp.array(False),
        num_counted=jnp.int32(0),
        total=jnp.zeros(len(names) + 1),
    )
    num_steps = settings.num_epochs
    if rows is not None:
        rows = rows[: settings.num_epochs].reshape(-1, rows.shape[-1])
        num_steps = len(rows)
    end, _ = jax.lax.scan(step, start, rows, length=num_steps)
    means = mean(end.total, end.num_counted)
    report = dict(zip([*names, "grad_norm"], means, strict=True))
    report["steps"] = (end.num_counted - end.stopped).astype(end.total.dtype)
    return with_parameters(network, end.parameters), end.opt_state, report


def gradient_step(
    state: FitState, network: Network, minibatch: Batch, settings: FitSettings, names: list[str]
) -> FitState:
    """Take a step on a minibatch, unless the fit has stopped or the minibatch has no weight."""
    if settings.preprocess is not None:
        minibatch = settings.preprocess(minibatch)
    gradient, means = mean_gradient(
        state.parameters, network, minibatch, settings.objective, settings.layout
    )
    has_weight = jnp.any(minibatch.weight > 0)
    # The minibatch at which the fit stops counts, but its step is not taken.
    is_counted = ~state.stopped & has_weight
    stopped, report = state.stopped, dict(zip(names, means, strict=True))
    if settings.keep_going is not None:
        stopped |= has_weight & ~settings.keep_going(report)
    is_taken = ~stopped & has_weight
    updates, opt_state = settings.optimizer.update(
        gradient, state.opt_state, state.parameters, value=settings.loss(report)
    )
    grad_norm = norm(ravel_pytree(gradient)[0])
    # Not appended: XLA for GPUs (jaxlib 0.10.2) fails on that concatenation.
    summed = jnp.stack([*means, grad_norm])
    stepped = eqx.apply_updates(state.parameters, updates), opt_state
    parameters, opt_state = tree_where(is_taken, stepped, (state.parameters, state.opt_state))
    counts = state.num_counted + 1, state.total + summed
    num_counted, total = tree_where(is_counted, counts, (state.num_counted, state.total))
    return FitState(parameters, opt_state, stopped, num_counted, total)


def mean_gradient(
    parameters: PyTree,
    network: Network,
    batch: Batch,
    objective: Callable[[Any, Batch], tuple[Float[Array, " batch"], RowReport]],
    layout: Layout = ALONE,
) -> tuple[PyTree, Float[Array, " report"]]:
    """The gradient of the loss's weighted mean over a batch, and the means of the report.

    Both are summed over rows as one vector: one operation for all parameters.
    """
    total_weight = jnp.sum(batch.weight)
    normalized_weight = batch.weight / jnp.where(total_weight > 0, total_weight, 1)

    def summed_gradient(rows):
        def summed_loss(parameters):
            loss_and_report = objective(with_parameters(network, parameters), rows)
            return jax.tree.map(lambda x: weighted_sum(x, rows.weight), loss_and_report)

        gradient, report = jax.grad(summed_loss, has_aux=True)(parameters)
        return ravel_pytree(gradient)[0], jnp.stack([report[name] for name in sorted(report)])

    batch = eqx.tree_at(lambda batch: batch.weight, batch, normalized_weight)
    gradient, means = sum_rows(summed_gradient, batch, layout)
    return ravel_pytree(parameters)[1](gradient), means
