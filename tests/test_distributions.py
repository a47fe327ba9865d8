"""Categorical against scipy, and with actions ruled out by logits of minus infinity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from purerl.distributions import Categorical

LOGITS = np.array([0.3, -1.2, 2.0, 0.9], np.float32)
POSSIBLE = np.array([True, False, True, False])
MASKED = np.where(POSSIBLE, LOGITS, -np.inf).astype(np.float32)
NUM_SAMPLES = 20_000


def sample_counts(logits):
    keys = jax.random.split(jax.random.key(0), NUM_SAMPLES)
    actions = jax.vmap(Categorical(jnp.asarray(logits)).sample)(keys)
    return np.bincount(actions, minlength=len(logits))


@pytest.mark.parametrize("shift", [0.0, 80.0, -80.0])
def test_log_prob_is_scipys_log_softmax(shift):
    logits = LOGITS + np.float32(shift)
    log_prob = jax.vmap(Categorical(jnp.asarray(logits)).log_prob)(jnp.arange(4))
    np.testing.assert_allclose(log_prob, scipy.special.log_softmax(logits), rtol=1e-5)


@pytest.mark.parametrize("logits", [LOGITS, MASKED, np.zeros(4, np.float32)])
def test_entropy_is_scipys(logits):
    expected = scipy.stats.entropy(scipy.special.softmax(logits))
    np.testing.assert_allclose(Categorical(jnp.asarray(logits)).entropy(), expected, rtol=1e-5)


def test_samples_come_with_the_frequencies_of_the_softmax():
    expected = NUM_SAMPLES * scipy.special.softmax(LOGITS.astype(float))
    assert scipy.stats.chisquare(sample_counts(LOGITS), expected).pvalue > 1e-3


def test_mode_is_the_most_likely_action_and_the_first_of_several():
    assert Categorical(jnp.asarray(LOGITS)).mode() == 2
    assert Categorical(jnp.array([0.0, 1.0, 1.0])).mode() == 1


def test_a_ruled_out_action_is_never_sampled_nor_the_mode_and_has_probability_0():
    counts = sample_counts(MASKED)
    assert np.all((counts > 0) == POSSIBLE)
    assert Categorical(jnp.asarray(np.where(POSSIBLE, -9.0, -np.inf))).mode() == 0
    assert Categorical(jnp.asarray(MASKED)).log_prob(jnp.int32(1)) == -jnp.inf


def test_gradients_with_ruled_out_actions_are_those_of_the_others_alone():
    def objective(logits, action):
        distribution = Categorical(logits)
        return distribution.log_prob(action) + distribution.entropy()

    def masked(logits):
        return objective(jnp.where(POSSIBLE, logits, -jnp.inf), jnp.int32(2))

    got = jax.grad(masked)(jnp.asarray(LOGITS))
    of_possible = jax.grad(objective)(jnp.asarray(LOGITS[POSSIBLE]), jnp.int32(1))
    np.testing.assert_allclose(got[POSSIBLE], of_possible, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got[~POSSIBLE], 0)


def test_one_possible_action_has_entropy_0_and_gradient_0():
    only = jnp.array([-jnp.inf, 0.7])
    value, gradient = jax.value_and_grad(lambda logits: Categorical(logits).entropy())(only)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)
