"""A network as training carries it: its arrays, what it normalises with, and a static rest."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from purerl.networks.normalization import RunningStats, merge


class Carried(eqx.Module):
    """A module split in two: its arrays, which training carries, and the rest, which is static.

    It is called like the module that it came from, on an observation of the environment: where
    observations are normalised it holds the statistics and does so itself, wherever it goes. A
    module may have leaves that are no arrays (`eqx.nn.MLP` has its activation) and would not pass
    through `jax.jit`; this does.
    """

    arrays: PyTree
    stats: RunningStats | None
    static: PyTree = eqx.field(static=True)

    def __call__(self, obs: Float[Array, "*obs"]) -> Any:
        return self.module(obs if self.stats is None else self.stats.normalize(obs))

    @property
    def module(self) -> Any:
        """The module that this was made of, with the present arrays."""
        return eqx.combine(self.arrays, self.static)


def carried(module: eqx.Module, stats: RunningStats | None = None) -> Carried:
    """Split a module into the form in which a `TrainState` holds it.

    Use it to start from given parameters:
    `eqx.tree_at(lambda s: s.learner.policy, state, carried(my_policy))`.

    **Arguments:** `stats` are what observations are normalised with before the module sees them.
    """
    if isinstance(module, Carried):
        return module
    arrays, static = eqx.partition(module, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    return Carried(arrays, stats, static)


def parameters(network: Carried) -> PyTree:
    """What an optimiser changes: the inexact arrays of the module, without the statistics."""
    return eqx.filter(network.arrays, eqx.is_inexact_array)


def with_parameters(network: Carried, parameters: PyTree) -> Carried:
    """The network with other parameters."""
    return Carried(eqx.combine(parameters, network.arrays), network.stats, network.static)


def observe(networks: PyTree, obs: Float[Array, "..."]) -> PyTree:
    """Add observations to the statistics of every network in a pytree that normalises them."""

    def add(stats):
        return merge(stats, obs) if isinstance(stats, RunningStats) else stats

    return jax.tree.map(add, networks, is_leaf=lambda node: isinstance(node, RunningStats))
