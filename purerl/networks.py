"""Policies and baselines as equinox modules, and the factories that a config holds.

A factory is a hashable value `(key, obs_space, action_space) -> eqx.Module` of one observation.
Two that are equal never retrace; a lambda built anew with each config does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from purerl.distributions import Categorical
from purerl.envs import Box, Discrete, Space


class Dense(eqx.Module):
    """`x @ weight + bias`, with the weight stored `[in, out]`.

    Under `vmap` that is one matrix product whose operands lie in memory as the processor reads
    them; `weight @ x`, an example at a time, is 2 to 4 times slower on a CPU.
    """

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, in_size: int, out_size: int, *, scale: float, key: Key[Array, ""]):
        # Normal, not orthogonal: orthogonal needs a QR, which under vmap over seeds can hang on a
        # CPU with two worker threads (jaxlib 0.10.2).
        std = scale / in_size**0.5
        self.weight = std * jax.random.normal(key, (in_size, out_size))
        self.bias = jnp.zeros(out_size)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return x @ self.weight + self.bias


class MLP(eqx.Module):
    """Dense layers with an activation between them.

    Weights are normal with standard deviation `gain / sqrt(in)`: 1 in the hidden layers,
    `out_scale` in the last. Biases are 0.
    """

    layers: tuple[Dense, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        in_size: int,
        hidden: tuple[int, ...],
        out_size: int,
        *,
        activation: Callable[[Array], Array],
        out_scale: float,
        key: Key[Array, ""],
    ):
        sizes = (in_size, *hidden, out_size)
        scales = (1.0,) * len(hidden) + (out_scale,)
        keys = jax.random.split(key, len(scales))
        self.layers = tuple(
            Dense(sizes[i], sizes[i + 1], scale=scales[i], key=keys[i]) for i in range(len(scales))
        )
        self.activation = activation

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class CategoricalPolicy(eqx.Module):
    """A network whose outputs are the logits of a discrete action."""

    network: eqx.Module

    def __call__(self, obs: Float[Array, " obs"]) -> Categorical:
        return Categorical(self.network(obs))  # pyright: ignore[reportCallIssue]


class ValueBaseline(eqx.Module):
    """A network whose one output is the value of an observation."""

    network: eqx.Module

    def __call__(self, obs: Float[Array, " obs"]) -> Float[Array, ""]:
        return self.network(obs)[0]  # pyright: ignore[reportCallIssue]


@dataclasses.dataclass(frozen=True)
class MLPPolicy:
    """Factory of the default policy: vector observations, discrete actions.

    The last layer starts small, so that the first policy is close to uniform.
    """

    hidden: tuple[int, ...] = (64, 64)
    activation: Callable[[Array], Array] = jnp.tanh

    def __call__(self, key: Key[Array, ""], obs_space: Space, action_space: Space) -> eqx.Module:
        if not isinstance(action_space, Discrete):
            raise ValueError(
                f"the default policy takes discrete actions, but the environment's are "
                f"{action_space}; give policy= a factory of your own."
            )
        in_size = _vector_size(obs_space, "policy")
        return CategoricalPolicy(
            MLP(
                in_size,
                self.hidden,
                action_space.n,
                activation=self.activation,
                out_scale=0.01,
                key=key,
            )
        )


@dataclasses.dataclass(frozen=True)
class MLPBaseline:
    """Factory of the default baseline: vector observations."""

    hidden: tuple[int, ...] = (64, 64)
    activation: Callable[[Array], Array] = jnp.tanh

    def __call__(self, key: Key[Array, ""], obs_space: Space, action_space: Space) -> eqx.Module:
        del action_space
        in_size = _vector_size(obs_space, "baseline")
        return ValueBaseline(
            MLP(in_size, self.hidden, 1, activation=self.activation, out_scale=1.0, key=key)
        )


class Carried(eqx.Module):
    """A module split in two: its arrays, which training carries, and the rest, which is static.

    It is called like the module that it came from. A module may have leaves that are no arrays
    (`eqx.nn.MLP` has its activation) and would not pass through `jax.jit`; this does.
    """

    arrays: PyTree
    static: PyTree = eqx.field(static=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @property
    def module(self) -> Any:
        """The module that this was made of, with the present arrays."""
        return eqx.combine(self.arrays, self.static)


def carried(module: eqx.Module) -> Carried:
    """Split a module into the form in which a `TrainState` holds it.

    Use it to start from given parameters:
    `eqx.tree_at(lambda s: s.learner.policy, state, carried(my_policy))`.
    """
    if isinstance(module, Carried):
        return module
    return Carried(*eqx.partition(module, lambda leaf: isinstance(leaf, jax.Array | np.ndarray)))


def _vector_size(obs_space: Space, what: str) -> int:
    if not isinstance(obs_space, Box) or len(obs_space.shape) != 1:
        raise ValueError(
            f"the default {what} takes vector observations, but the environment's are "
            f"{obs_space}; give {what}= a factory of your own."
        )
    return obs_space.shape[0]
