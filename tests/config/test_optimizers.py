"""Two optimisers: each network has its own, made for its own parameters and told its loss."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from probes import Probe
from trees import assert_bitwise_equal

import purerl

ENV: Any = Probe("match", length=3)
SIZES: Any = {"num_envs": 4, "rollout_length": 8, "total_steps": 64, "hidden": (4,)}


def sgd(learning_rate, max_grad_norm):
    return optax.sgd(learning_rate)


def still(learning_rate, max_grad_norm):
    return optax.set_to_zero()


def on_plateau(learning_rate, max_grad_norm):
    rate = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, accumulation_size=1)
    return optax.chain(optax.sgd(learning_rate), rate)


def injected(learning_rate, max_grad_norm):
    return optax.inject_hyperparams(optax.sgd)(learning_rate=learning_rate)


def first_layer_frozen(learning_rate, max_grad_norm):
    def labels(params):
        others = jax.tree.map(lambda leaf: "trained", params)
        first = jax.tree.map(lambda leaf: "frozen", params.layers[0])
        return eqx.tree_at(lambda module: module.layers[0], others, first)

    rules: Any = {"trained": optax.adam(learning_rate), "frozen": optax.set_to_zero()}
    return optax.multi_transform(rules, labels)


def perceptron(key, obs_space, action_space):
    out = action_space.n
    mlp = eqx.nn.MLP(int(np.prod(obs_space.shape)), out, 4, 1, key=key)
    return Perceptron(mlp.layers)


class Perceptron(eqx.Module):
    layers: Any

    def __call__(self, obs):
        hidden = jnp.tanh(self.layers[0](jnp.ravel(obs)))
        return purerl.Categorical(self.layers[1](hidden))


def trained(**settings):
    config = purerl.vpg(ENV, **{**SIZES, **settings})
    before = jax.jit(purerl.init)(jax.random.key(0), config)
    after, metrics = jax.jit(purerl.train)(jax.random.key(0), config)
    return before.learner, after.learner, metrics


def is_moved(before, after):
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return not all(np.array_equal(leaf, other) for leaf, other in pairs)


@pytest.mark.parametrize(
    ("settings", "moved"),
    [
        ({"policy_optimizer": still}, (False, True)),
        ({"baseline_optimizer": still}, (True, False)),
        ({"optimizer": still, "policy_optimizer": sgd}, (True, False)),
        ({"optimizer": still}, (False, False)),
    ],
)
def test_each_network_has_its_own_optimizer(settings, moved):
    before, after, _ = trained(**settings)
    assert is_moved(before.policy, after.policy) == moved[0]
    assert is_moved(before.baseline, after.baseline) == moved[1]


def test_labels_by_attribute_freeze_a_part_exactly():
    before, after, _ = trained(policy=perceptron, policy_optimizer=first_layer_frozen, hidden=(4,))
    first, last = (lambda learner, i=i: learner.policy.module.layers[i] for i in (0, 1))
    assert_bitwise_equal(first(after), first(before))
    assert is_moved(last(before), last(after))


def recorded(losses):
    """An optimiser that keeps the losses that it is told in its state."""

    def make(learning_rate, max_grad_norm):
        def update(updates, state, params=None, *, value, **extra):
            del params, extra
            count, seen = state
            return jax.tree.map(jnp.zeros_like, updates), (count + 1, seen.at[count].set(value))

        start = jnp.int32(0), jnp.zeros(losses)
        told: Any = update
        return optax.GradientTransformationExtraArgs(lambda params: start, told)

    return make


def test_an_optimizer_is_told_the_loss():
    """Nothing moves, so that the loss of each update is that of its metrics."""
    _, after, metrics = trained(optimizer=recorded(2), baseline_epochs=1, entropy_coef=0.5)
    loss = metrics.policy_loss - 0.5 * metrics.entropy
    np.testing.assert_allclose(after.policy_opt_state[1], loss, rtol=1e-6)
    np.testing.assert_allclose(after.baseline_opt_state[1], metrics.value_loss, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [on_plateau, injected])
def test_optimizers_with_a_state_of_their_own_train(optimizer):
    before, after, metrics = trained(optimizer=optimizer)
    assert is_moved(before.policy, after.policy)
    assert np.isfinite(metrics.policy_loss).all()


def grows(learning_rate, max_grad_norm):
    """Its state has another shape after a step."""

    def update(updates, state, params=None):
        return updates, jnp.zeros(2)

    return optax.GradientTransformation(lambda params: jnp.zeros(1), update)


def of_another_dtype(learning_rate, max_grad_norm):
    def update(updates, state, params=None):
        return jax.tree.map(lambda x: x.astype(jnp.float16), updates), state

    return optax.GradientTransformation(lambda params: (), update)


def raises_in_update(learning_rate, max_grad_norm):
    def update(updates, state, params=None):
        raise RuntimeError("no such layer")

    return optax.GradientTransformation(lambda params: (), update)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "three": (
        purerl.vpg,
        {"optimizer": sgd, "policy_optimizer": sgd, "baseline_optimizer": sgd},
        "optimizer = .* has no effect beside policy_optimizer and baseline_optimizer",
    ),
    "none of a baseline": (
        purerl.reinforce,
        {"baseline_optimizer": sgd},
        "baseline_optimizer = .* has no effect: reinforce has no baseline",
    ),
    "two without a baseline": (
        purerl.reinforce,
        {"optimizer": sgd, "policy_optimizer": sgd},
        "optimizer = .* has no effect beside policy_optimizer;",
    ),
    "a state that grows": (purerl.vpg, {"baseline_optimizer": grows}, "baseline_optim.*its state"),
    "half": (purerl.vpg, {"policy_optimizer": of_another_dtype}, "policy_optim.*its updates"),
    "an update that raises": (purerl.vpg, {"optimizer": raises_in_update}, "fit: no such layer"),
    "no function": (purerl.vpg, {"policy_optimizer": "adam"}, "policy_optimizer = 'adam' does not"),
    "the optimiser itself": (purerl.vpg, {"optimizer": optax.adam(1e-3)}, "policy_optimizer = .*"),
}


@pytest.mark.parametrize(("factory", "settings", "line"), REFUSED.values(), ids=list(REFUSED))
def test_what_does_not_fit_is_refused(factory, settings, line, without_type_checks):
    with pytest.raises(ValueError, match=line) as error:
        factory(ENV, **SIZES, **settings)
    assert "\n" not in str(error.value)
