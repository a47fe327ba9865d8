"""Distributions over actions from a box, against scipy and numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import purerl

LOC, SCALE = jnp.array([0.3, -0.4, 0.1]), jnp.array([0.5, 1.2, 0.8])


def plain():
    return purerl.DiagonalGaussian(LOC, SCALE)


def squashed():
    return purerl.SquashedGaussian(LOC, SCALE)


def squashed_log_prob(action, loc, scale):
    """The density of `tanh(u)`, by the change of variables."""
    return stats.norm.logpdf(np.arctanh(action), loc, scale) - np.log(1 - action**2)


def test_log_prob_of_a_plain_gaussian_is_scipys():
    action = jnp.array([0.7, -3.0, 9.0])
    want = stats.norm.logpdf(action, LOC, SCALE).sum()
    np.testing.assert_allclose(plain().log_prob(action), want, rtol=1e-5)


def test_log_prob_of_a_squashed_gaussian_is_that_of_the_change_of_variables():
    action = jnp.array([0.75, -0.6, 0.8])
    want = squashed_log_prob(*(np.asarray(x, float) for x in (action, LOC, SCALE)))
    np.testing.assert_allclose(squashed().log_prob(action), want.sum(), rtol=1e-4)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_a_squashed_density_integrates_to_the_probability_between_two_actions(scale):
    one = purerl.SquashedGaussian(jnp.array([0.2]), jnp.array([scale]))
    density = jax.jit(lambda a: jnp.exp(one.log_prob(a[None])))
    total, _ = integrate.quad(lambda a: float(density(jnp.float32(a))), -0.95, 0.95, epsabs=1e-5)
    want = np.diff(stats.norm.cdf(np.arctanh([-0.95, 0.95]), 0.2, scale))
    np.testing.assert_allclose(total, want[0], atol=1e-4)


def test_entropy_of_a_plain_gaussian_is_scipys():
    np.testing.assert_allclose(plain().entropy(), stats.norm.entropy(LOC, SCALE).sum(), rtol=1e-5)


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0, 2.0])
def test_entropy_of_a_squashed_gaussian_is_the_integral(scale):
    loc = 0.4

    def surprise(u):
        return -squashed_log_prob(np.tanh(u), loc, scale) * stats.norm.pdf(u, loc, scale)

    # Beyond 8, tanh is 1 in float64 too, and the density there is nothing.
    ends = max(-8.0, loc - 9 * scale), min(8.0, loc + 9 * scale)
    want, _ = integrate.quad(surprise, *ends, limit=200)
    found = purerl.SquashedGaussian(jnp.array([loc]), jnp.array([scale])).entropy()
    np.testing.assert_allclose(found, want, atol=2e-2)


@pytest.mark.parametrize("make", [plain, squashed])
def test_the_mean_log_prob_of_samples_is_the_entropy_negated(make):
    distribution = make()
    actions = jax.vmap(distribution.sample)(jax.random.split(jax.random.key(0), 20_000))
    log_prob = jax.vmap(distribution.log_prob)(actions)
    error = 4 * float(log_prob.std()) / 20_000**0.5  # four standard errors
    np.testing.assert_allclose(log_prob.mean(), -distribution.entropy(), atol=error + 1e-2)


def test_squashed_samples_lie_within_the_bounds_and_the_mode_is_the_median():
    distribution = squashed()
    actions = jax.vmap(distribution.sample)(jax.random.split(jax.random.key(0), 20_000))
    assert jnp.all((actions >= -1) & (actions <= 1))
    np.testing.assert_allclose(jnp.median(actions, axis=0), distribution.mode(), atol=0.05)


def test_the_mode_of_a_plain_gaussian_is_its_centre():
    np.testing.assert_array_equal(plain().mode(), LOC)


def test_an_action_at_the_very_bound_has_a_finite_log_prob_and_gradient():
    def log_prob(loc):
        return purerl.SquashedGaussian(loc, SCALE).log_prob(jnp.ones(3))

    value, gradient = jax.value_and_grad(log_prob)(LOC)
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(gradient))
    assert jnp.all(gradient > 0)  # towards the bound


def test_the_gradient_of_the_entropy_is_finite_and_grows_with_a_small_scale():
    def entropy(scale):
        return purerl.SquashedGaussian(LOC, scale).entropy()

    gradient = jax.grad(entropy)(jnp.full(3, 0.1))
    assert jnp.all(jnp.isfinite(gradient))
    assert jnp.all(gradient > 0)
