"""A network as training carries it: its arrays, its statistics, and a static rest."""

import copy
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Real, Shaped

from purerl.distributions import squashed
from purerl.envs import Space, scale_action
from purerl.networks.normalization import RunningStats, update_stats
from purerl.types import default_float


class Network(eqx.Module):
    """A module split into its arrays, its constants, and the rest, which is static.

    Call it like its module, on an observation of the environment. It normalises the observation
    itself where it holds statistics. It passes through `jax.jit`, unlike a module with leaves that
    are no arrays, such as the activation of `eqx.nn.MLP`. What it gives is float32 at least: a
    module may compute in bfloat16, but log-probabilities, losses and values do not.

    Training changes the inexact ones of `arrays`, which were JAX arrays in the module; `constants`
    were NumPy arrays, and stay as they are. Another part is kept from training by
    `jax.lax.stop_gradient` where the module reads it.
    """

    arrays: PyTree
    constants: PyTree
    stats: RunningStats | None
    static: PyTree = eqx.field(static=True)

    def __call__(self, obs: Float[Array, "*obs"]) -> Any:
        out = self.module(obs if self.stats is None else self.stats.normalize(obs))
        return jax.tree.map(lambda x: x.astype(default_float()) if is_below_float32(x) else x, out)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Network":
        """Its arrays are copied; what is static stays the same object, so that the copy equals."""
        return jax.tree.map(lambda leaf: copy.deepcopy(leaf, memo), self)

    @property
    def module(self) -> Any:
        """The module, with the present arrays."""
        return eqx.combine(self.arrays, self.constants, self.static)


class TrainedPolicy(eqx.Module):
    """A policy as it leaves training: its network, and the action space of its environment.

    Called on one observation it gives the distribution of its action, in units of the action space;
    of one that squashes, `act` alone gives the action squashed.
    """

    network: Network
    action_space: Space = eqx.field(static=True)

    def __call__(self, obs: Real[Array | np.ndarray, "*obs"]) -> Any:
        return self.network(jnp.asarray(obs).astype(default_float()))

    def act(
        self, obs: Real[Array | np.ndarray, "*obs"], key: Key[Array, ""] | None = None
    ) -> Shaped[Array, "*action"]:
        """The action to send to the environment, for one observation of it.

        It is the distribution's mode, or a sample where there is a key; squashed where the
        distribution squashes, and brought to the bounds.
        """
        distribution = self(obs)
        action = distribution.mode() if key is None else distribution.sample(key)
        return scale_action(squashed(distribution, action), self.action_space)


def as_network(module: eqx.Module, stats: RunningStats | None = None) -> Network:
    """Split a module into the form in which a `TrainState` holds it.

    Use it to start from given parameters:
    `eqx.tree_at(lambda s: s.learner.policy, state, as_network(my_policy))`.

    **Arguments:** `stats` normalise observations before the module sees them.

    **Raises:** `ValueError` for a parameter below float32, such as one of bfloat16.
    """
    if not isinstance(module, Network):
        arrays, rest = eqx.partition(module, lambda leaf: isinstance(leaf, jax.Array))
        constants, static = eqx.partition(rest, lambda leaf: isinstance(leaf, np.ndarray))
        module = Network(arrays, constants, stats, static)
    require_float32_parameters(module, type(module.module).__name__)
    return module


def is_below_float32(leaf: Any) -> bool:
    """Whether a leaf is an array of floats with fewer bits than float32, such as bfloat16."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def require_float32_parameters(network: Network, owner: str) -> None:
    """Refuse a parameter below float32: most steps of an optimiser would round to nothing in it."""
    for path, leaf in jax.tree.leaves_with_path(parameters(network)):
        if is_below_float32(leaf):
            name = jax.tree_util.keystr(path).removeprefix(".")
            raise ValueError(
                f"{owner}'s parameter {name} is {leaf.dtype}; keep parameters {default_float()}, "
                f"and compute in {leaf.dtype} inside the network: {name}.astype(jnp.{leaf.dtype})."
            )


def require_network(name: str, network: Any, *, has_stats: bool) -> None:
    """Refuse what a state holds as a network and that cannot be trained as it is; None passes."""
    if network is None:
        return
    if not isinstance(network, Network):
        raise ValueError(
            f"the state's {name} is a {type(network).__name__}; put a network there: of a "
            f"run, run.policy(seed).network, of a module, purerl.as_network(module)."
        )
    require_float32_parameters(network, f"the state's {name}")
    if has_stats and network.stats is None:
        raise ValueError(
            f"normalize_obs = True, but the state's {name} has no statistics; give it some: "
            f"purerl.as_network(module, state.learner.{name}.stats)."
        )


def parameters(network: Network) -> PyTree:
    """The arrays that an optimiser changes: the module's inexact ones, without the statistics."""
    return eqx.filter(network.arrays, eqx.is_inexact_array)


def with_parameters(network: Network, parameters: PyTree) -> Network:
    """The network with other parameters."""
    arrays = eqx.combine(parameters, network.arrays)
    return Network(arrays, network.constants, network.stats, network.static)


def update_obs_stats(networks: PyTree, obs: Float[Array, "..."]) -> PyTree:
    """Add observations to the statistics of every network in a pytree that normalises them."""

    def add(stats):
        return update_stats(stats, obs) if isinstance(stats, RunningStats) else stats

    return jax.tree.map(add, networks, is_leaf=lambda node: isinstance(node, RunningStats))
