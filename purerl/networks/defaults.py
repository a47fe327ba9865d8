"""The default policy and baseline for every space, and the factories that a config holds.

A factory is a hashable value `(key, obs_space, action_space) -> eqx.Module` of one observation.
Two that are equal never retrace; a lambda built anew with each config does. The spaces are those of
the environment's default parameters, and `action_space` is in units (`Box.in_units`).
"""

import dataclasses
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from purerl.distributions import Categorical, DiagonalGaussian, SquashedGaussian
from purerl.envs import Box, Discrete, Space
from purerl.networks.layers import MLP, Convolution
from purerl.networks.values import by_value
from purerl.types import default_float

MAX_IMAGE = 12  # images with a longer short side are first halved by convolutions of stride 2
LOG_STD_RANGE = (-5.0, 2.0)  # where a network gives the standard deviation


class Encoder(eqx.Module):
    """Turns one observation into a vector of features.

    An integer becomes one-hot, an image `[height, width, channels]` goes through convolutions, and
    other shapes are flattened.
    """

    num_classes: int | None = eqx.field(static=True)
    convolutions: tuple[Convolution, ...]
    size: int = eqx.field(static=True)

    def __init__(self, obs_space: Space, *, channels: int, key: Key[Array, ""]):
        self.num_classes = obs_space.n if isinstance(obs_space, Discrete) else None
        self.convolutions = ()
        if len(obs_space.shape) == 3:
            self.convolutions = _convolutions(obs_space.shape, channels, key)
        obs = jax.ShapeDtypeStruct(obs_space.shape, default_float())
        self.size = jax.eval_shape(lambda obs: self(obs), obs).shape[0]

    def __call__(self, obs: Float[Array, "*obs"]) -> Float[Array, " features"]:
        if self.num_classes is not None:
            return (obs == jnp.arange(self.num_classes)).astype(default_float())
        for convolution in self.convolutions:
            obs = jax.nn.relu(convolution(obs))
        return obs.reshape(-1)


def _convolutions(
    shape: tuple[int, ...], channels: int, key: Key[Array, ""]
) -> tuple[Convolution, ...]:
    """3 × 3 convolutions: of stride 2 until the image is small, then one of stride 1."""
    if shape[0] in (1, 3, 4) and shape[1] == shape[2] > 4:
        raise ValueError(
            f"observations of shape {shape} look like [channels, height, width]; the default "
            f"networks take [height, width, channels]."
        )
    convolutions: list[Convolution] = []
    image = jax.ShapeDtypeStruct(shape, default_float())
    while not convolutions or convolutions[-1].stride == 2:
        key, layer_key = jax.random.split(key)
        stride = 2 if min(image.shape[:2]) > MAX_IMAGE else 1
        layer = Convolution(image.shape, channels, kernel=3, stride=stride, key=layer_key)
        convolutions.append(layer)
        image = jax.eval_shape(lambda image, layer=layer: layer(image), image)
    return tuple(convolutions)


class EncoderMLP(eqx.Module):
    """An encoder and the dense layers behind it."""

    encoder: Encoder
    mlp: MLP

    def __init__(
        self,
        factory: "DefaultPolicy | DefaultBaseline",
        obs_space: Space,
        out_size: int,
        *,
        out_scale: float,
        key: Key[Array, ""],
    ):
        encoder_key, mlp_key = jax.random.split(key)
        self.encoder = Encoder(obs_space, channels=factory.channels, key=encoder_key)
        self.mlp = MLP(
            self.encoder.size,
            factory.hidden,
            out_size,
            activation=factory.activation,
            out_scale=out_scale,
            key=mlp_key,
        )

    def __call__(self, obs: Float[Array, "*obs"]) -> Float[Array, " out"]:
        return self.mlp(self.encoder(obs))


class CategoricalPolicy(eqx.Module):
    """A network whose outputs are the logits of a discrete action."""

    network: EncoderMLP

    def __call__(self, obs: Float[Array, "*obs"]) -> Categorical:
        return Categorical(self.network(obs))


class GaussianPolicy(eqx.Module):
    """A network whose outputs are the centre of a normal, in units of the action space.

    The logarithm of the standard deviation is `log_std`, a parameter, the same for every
    observation. With `std_from_obs`, it is `log_std + output / n`, between −5 and 2, of one more
    output for each component, which sums n features. With `squash`, tanh squeezes the normal
    between the bounds. Else actions may lie beyond them, and are clipped on their way into the
    environment.
    """

    network: EncoderMLP
    log_std: Float[Array, "*action"]
    shape: tuple[int, ...] = eqx.field(static=True)
    std_from_obs: bool = eqx.field(static=True)
    squash: bool = eqx.field(static=True)

    def __call__(self, obs: Float[Array, "*obs"]) -> DiagonalGaussian | SquashedGaussian:
        out, log_std = self.network(obs), self.log_std
        if self.std_from_obs:
            out, offset = jnp.split(out, 2)
            # The mean over features, not their sum: a step of Adam moves every weight as far as a
            # parameter, so the sum of 64 moves up to 64 times as far, and the deviation collapses.
            num_features = self.network.mlp.layers[-1].weight.shape[0]
            log_std = log_std + offset.reshape(self.shape) / num_features
            log_std = jnp.clip(log_std, *LOG_STD_RANGE)
        distribution = SquashedGaussian if self.squash else DiagonalGaussian
        return distribution(out.reshape(self.shape), jnp.exp(log_std))


class ValueBaseline(eqx.Module):
    """A network whose one output is the value of an observation."""

    network: EncoderMLP

    def __call__(self, obs: Float[Array, "*obs"]) -> Float[Array, ""]:
        return self.network(obs)[0]


@dataclasses.dataclass(frozen=True)
class DefaultPolicy:
    """Factory of the default policy: a categorical, or a Gaussian for actions from a box.

    The last layer starts small, so that the first policy is close to uniform, or centred.

    **Arguments:** `channels` are those of each convolution, where observations are images. For
    actions from a box, the standard deviation is one parameter for each component;
    `std_from_obs` lets the network raise and lower it by the observation (`GaussianPolicy`).
    `squash` squeezes the Gaussian between the bounds by tanh.
    """

    hidden: tuple[int, ...] = (64, 64)
    activation: Callable[[Array], Array] = jnp.tanh
    channels: int = 16
    std_from_obs: bool = False
    squash: bool = False

    def __post_init__(self):
        object.__setattr__(self, "activation", by_value("activation", self.activation))

    def __call__(
        self, key: Key[Array, ""], obs_space: Space, action_space: Space
    ) -> CategoricalPolicy | GaussianPolicy:
        self._check(action_space)

        def network(out_size):
            return EncoderMLP(self, obs_space, out_size, out_scale=0.01, key=key)

        if isinstance(action_space, Discrete):
            return CategoricalPolicy(network(action_space.n))
        size = math.prod(action_space.shape)
        return GaussianPolicy(
            network=network(2 * size if self.std_from_obs else size),
            log_std=jnp.zeros(action_space.shape),
            shape=action_space.shape,
            std_from_obs=self.std_from_obs,
            squash=self.squash,
        )

    def _check(self, action_space: Space) -> None:
        if isinstance(action_space, Discrete) and (self.squash or self.std_from_obs):
            name = "squash" if self.squash else "std_from_obs"
            raise ValueError(
                f"{name} = True has no effect on {action_space} actions; leave it out."
            )
        if self.squash and isinstance(action_space, Box) and not action_space.is_bounded:
            raise ValueError(
                f"squash = True needs two bounds for each component, but {action_space} lacks "
                f"some; leave it out."
            )


@dataclasses.dataclass(frozen=True)
class DefaultBaseline:
    """Factory of the default baseline.

    **Arguments:** `channels` are those of each convolution, where observations are images.
    """

    hidden: tuple[int, ...] = (64, 64)
    activation: Callable[[Array], Array] = jnp.tanh
    channels: int = 16

    def __post_init__(self):
        object.__setattr__(self, "activation", by_value("activation", self.activation))

    def __call__(self, key: Key[Array, ""], obs_space: Space, action_space: Space) -> ValueBaseline:
        del action_space
        return ValueBaseline(EncoderMLP(self, obs_space, 1, out_scale=1.0, key=key))
