"""Layers of the default networks, each for one example; `vmap` maps them over many."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


class Dense(eqx.Module):
    """`x @ weight + bias`, with the weight stored `[in, out]`.

    Under `vmap` this is one matrix product, of operands stored in the order in which they are read.
    `weight @ x`, an example at a time, is 2 to 4 times slower on a CPU.
    """

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, in_size: int, out_size: int, *, scale: float, key: Key[Array, ""]):
        # Normal, not orthogonal: orthogonal needs a QR, which under vmap over seeds can hang on a
        # CPU with two worker threads (jaxlib 0.10.2).
        std = scale / in_size**0.5
        self.weight = std * jax.random.normal(key, (in_size, out_size))
        self.bias = jnp.zeros(out_size)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return x @ self.weight + self.bias


class MLP(eqx.Module):
    """Dense layers with an activation between them.

    Weights are normal with standard deviation `scale / sqrt(in)`: 1 in the hidden layers,
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


class Convolution(eqx.Module):
    """A convolution of an image `[height, width, channels]`, without padding.

    It is a matrix product of the image's patches. On a CPU, this and its gradient are faster than
    XLA's convolution.
    """

    dense: Dense
    kernel: tuple[int, int] = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        key: Key[Array, ""],
    ):
        height, width, channels = in_shape
        self.kernel = (min(kernel, height), min(kernel, width))
        self.stride = stride
        in_size = self.kernel[0] * self.kernel[1] * channels
        # relu follows: it halves the variance.
        self.dense = Dense(in_size, out_channels, scale=2**0.5, key=key)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, "h2 w2 c2"]:
        rows, columns = self.kernel
        last_row, last_column = image.shape[0] - rows, image.shape[1] - columns
        patches = [
            image[i : last_row + i + 1 : self.stride, j : last_column + j + 1 : self.stride]
            for i in range(rows)
            for j in range(columns)
        ]
        return self.dense(jnp.concatenate(patches, axis=-1))
