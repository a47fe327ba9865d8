"""Types that all share: hyperparameters, transitions, metrics, and what a user may bring."""

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num, PyTree, Shaped


def default_float() -> np.dtype:
    """float32, or float64 where jax's 64 bits are enabled."""
    return jax.dtypes.canonicalize_dtype(np.float64)


class Hyperparams(eqx.Module):
    """The traced scalars of an algorithm: a new value never recompiles, and each can be swept.

    Each is a scalar of the default float dtype, or in a sweep an array with one entry a setting.
    """

    policy_learning_rate: Float[Any, "..."]
    baseline_learning_rate: Float[Any, "..."]
    discount: Float[Any, "..."]
    gae_lambda: Float[Any, "..."]
    clip_eps: Float[Any, "..."]
    entropy_coef: Float[Any, "..."]
    max_grad_norm: Float[Any, "..."]
    target_kl: Float[Any, "..."]
    own: dict[str, Float[Any, "..."]] = eqx.field(default_factory=dict)
    """Those of an own loss or estimate, by name; elsewhere they are named `own.NAME`."""

    def value(self, name: str) -> Any:
        """One of them, by its name."""
        key = name.removeprefix("own.")
        return getattr(self, name) if key == name else self.own[key]

    def with_value(self, name: str, value: Any) -> "Hyperparams":
        """The same with another value of one of them."""
        key = name.removeprefix("own.")
        if key == name:
            return dataclasses.replace(self, **{name: value})
        return dataclasses.replace(self, own={**self.own, key: value})


class Transition(eqx.Module):
    """One environment step of one environment; stacked to `[T, N]` it is a rollout.

    `next_obs` is the true successor of `obs`, before any auto-reset, and `log_prob` belongs to
    the action as it was sampled: neither squashed nor clipped. `age` counts the steps of its
    episode before this one.
    """

    obs: Float[Array, "*batch_obs"]
    action: Shaped[Array, "*batch_action"]
    log_prob: Float[Array, "*batch"]
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    next_obs: Float[Array, "*batch_obs"]
    age: Int[Array, "*batch"]


class Estimate(NamedTuple):
    """What an algorithm computes from a rollout. The losses take it as a constant.

    A transition whose `weight` is 0 takes part in no loss, no entropy and no normalisation.
    """

    advantage: Float[Array, "T N"]
    value_target: Float[Array, "T N"]
    weight: Float[Array, "T N"]


class Metrics(eqx.Module):
    """What a training step reports: scalars, each NaN where it is not defined.

    `episode_return` and `episode_length` are means over the episodes that ended. A return is the
    undiscounted sum of the rewards that the environment gives, as its wrappers, if any, give them
    on; or, where it puts `info["episode_return"]` beside them, that number. `approx_kl` (http://joschu.net/blog/kl-approx.html)
    and `clip_fraction` compare the policy before each gradient step with the one that sampled:
    for an algorithm that takes one step a rollout both are 0, up to rounding. Gradient norms are
    those before clipping. Where an update takes several gradient steps, each figure is their mean;
    the minibatch whose KL exceeds `target_kl` counts too, though no step is taken on it.
    `policy_steps` is the number of gradient steps of the policy, of several updates their mean.
    """

    episode_return: Float[Any, "*batch"]
    episode_length: Float[Any, "*batch"]
    num_episodes: Num[Any, "*batch"]
    policy_loss: Float[Any, "*batch"]
    value_loss: Float[Any, "*batch"]
    entropy: Float[Any, "*batch"]
    explained_variance: Float[Any, "*batch"]
    approx_kl: Float[Any, "*batch"]
    clip_fraction: Float[Any, "*batch"]
    policy_grad_norm: Float[Any, "*batch"]
    baseline_grad_norm: Float[Any, "*batch"]
    policy_steps: Float[Any, "*batch"]


@runtime_checkable
class Env(Protocol):
    """A pure-JAX environment, as gymnax 1.0 defines it: any hashable object with these methods.

    `step` resets by itself where an episode ends, and puts the true successor, from before the
    reset, into `info["final_observation"]`, which is read nowhere else. It may put its own return
    of the episode so far, up to this step, into `info["episode_return"]`, such as a wrapper that
    shapes the reward: this is then what is logged and evaluated, and never learnt from. Only an
    environment with parameters needs `default_params`, a pytree of numbers. A NaN in the state
    freezes the agent; an infinity does not. An environment must not change: for equal ones, each
    method is traced once.
    """

    def reset(self, key: Key[Array, ""], params: PyTree, /) -> tuple[Array, PyTree]:
        """Return the first observation and the environment's state."""
        ...

    def step(
        self, key: Key[Array, ""], state: PyTree, action: Array, params: PyTree, /
    ) -> tuple[Array, PyTree, Array, Array, Array, dict[str, Any]]:
        """Return obs, state, reward, terminated, truncated, info."""
        ...

    def action_space(self, params: PyTree, /) -> Any:
        """Return a space with `n` (discrete) or with `low`, `high` and `shape` (a box)."""
        ...

    def observation_space(self, params: PyTree, /) -> Any:
        """Return a space, as `action_space` does."""
        ...


@runtime_checkable
class Distribution(Protocol):
    """What a policy returns for one observation: a pytree of arrays with these four methods.

    One that squeezes its actions between the bounds has a fifth, `squash(action)`. `sample`,
    `log_prob` and `mode` are then of the action before the squash: this is what is stored and
    learnt from, and only the environment gets it squashed.
    """

    def sample(self, key: Key[Array, ""]) -> Array: ...

    def log_prob(self, action: Array) -> Float[Array, ""]: ...

    def entropy(self) -> Float[Array, ""]: ...

    def mode(self) -> Array: ...


@runtime_checkable
class Policy(Protocol):
    """An equinox module: one observation in, a distribution over actions out."""

    def __call__(self, obs: Float[Array, "..."], /) -> Distribution: ...


@runtime_checkable
class Baseline(Protocol):
    """An equinox module: one observation in, its value V out."""

    def __call__(self, obs: Float[Array, "..."], /) -> Float[Array, ""]: ...
