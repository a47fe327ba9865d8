"""Networks are called on one observation alone: what needs more is refused, with what would do."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe

import purerl

SIZES: Any = {"num_envs": 2, "rollout_length": 4, "total_steps": 8, "hidden": (4,)}
MAKE_WITH_STATE: Any = eqx.nn.make_with_state  # it takes arguments of `__init__`, not fields
BATCH_NORM: Any = {"input_size": 4, "axis_name": "batch", "mode": "batch"}


class Layered(eqx.Module):
    """A policy of two actions with a layer between its two linear ones."""

    first: eqx.nn.Linear
    between: Any
    last: eqx.nn.Linear

    def __init__(self, key, between):
        self.first, self.last = eqx.nn.Linear(1, 4, key=key), eqx.nn.Linear(4, 2, key=key)
        self.between = between

    def __call__(self, obs):
        return purerl.Categorical(self.last(self.between(self.first(obs))))


class WithState(Layered):
    def __call__(self, obs, state):
        hidden, state = self.between(self.first(obs), state)
        return purerl.Categorical(self.last(hidden)), state


class Keyed(Layered):
    def __call__(self, obs, *, key):
        return purerl.Categorical(self.last(self.first(obs)))


def policy(make) -> Any:
    """A setting: the policy that `make(key)` makes."""
    return {"policy": lambda key, obs_space, action_space: make(key)}


def with_state(key):
    return MAKE_WITH_STATE(WithState)(key, eqx.nn.BatchNorm(**BATCH_NORM))


LAYER_NORM = r"keeps a state between calls, .*; use .*eqx\.nn\.LayerNorm"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a norm": (
        policy(lambda key: Layered(key, eqx.nn.BatchNorm(**BATCH_NORM))),
        rf"policy= does not fit: its BatchNorm {LAYER_NORM}",
    ),
    "a module of a norm": (
        policy(lambda key: with_state(key)[0]),
        rf"policy= does not fit: its BatchNorm {LAYER_NORM}",
    ),
    "a module and its state": (
        policy(with_state),
        rf"policy= does not fit: its BatchNorm {LAYER_NORM}",
    ),
    "a spectral norm": (
        policy(
            lambda key: Layered(
                key, eqx.nn.SpectralNorm(eqx.nn.Linear(4, 4, key=key), "weight", key=key)
            )
        ),
        rf"its SpectralNorm {LAYER_NORM}",
    ),
    "dropout": (
        policy(lambda key: Layered(key, eqx.nn.Dropout(0.5))),
        r"policy= does not fit: its Dropout takes a key at each call, .*; leave it out",
    ),
    "dropout of a baseline": (
        {"baseline": lambda key, obs, action: eqx.nn.Sequential([eqx.nn.Dropout(0.1)])},
        r"baseline= does not fit: its Dropout takes a key",
    ),
    "a key": (
        policy(lambda key: Keyed(key, between=None)),  # pyright: ignore[reportCallIssue]
        r"policy= does not fit: its __call__ needs key too, but is called on an observation alone",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_more_is_refused_in_one_line(case, without_type_checks):
    settings, line = REFUSED[case]
    with pytest.raises(ValueError, match=line) as error:
        purerl.vpg(Probe(), **SIZES, **settings)
    assert "\n" not in str(error.value)


def test_what_fails_for_another_reason_says_so():
    with pytest.raises(ValueError, match=r"policy= does not fit: .*shape"):
        purerl.vpg(Probe(), **SIZES, **policy(lambda key: Layered(key, lambda x: x[:3])))


@pytest.mark.parametrize(
    "between", [eqx.nn.LayerNorm(4), eqx.nn.Dropout(0.5, inference=True), eqx.nn.Dropout(0.0)]
)
def test_what_needs_no_more_trains(between):
    config = purerl.vpg(Probe(), **SIZES, **policy(lambda key: Layered(key, between)))
    _, metrics = jax.jit(purerl.train)(jax.random.key(0), config)
    assert np.isfinite(metrics.policy_loss).all()
    assert jnp.ndim(metrics.policy_loss) == 1


class OwnKey(Layered):
    def __call__(self, obs):
        hidden = self.between(self.first(obs), key=jax.random.key(0))
        return purerl.Categorical(self.last(hidden[:3]))


def test_another_error_of_a_network_with_dropout_is_told_as_it_is():
    make: Any = OwnKey
    made = policy(lambda key: make(key, eqx.nn.Dropout(0.5)))
    with pytest.raises(ValueError, match=r"policy= does not fit: (?!its Dropout)"):
        purerl.vpg(Probe(), **SIZES | made)
