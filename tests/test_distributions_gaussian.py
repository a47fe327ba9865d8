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


def squashed_log_prob(u, loc, scale):
    """The density of `tanh(u)`, by the change of variables."""
    return stats.norm.logpdf(u, loc, scale) + 2 * (np.logaddexp(u, -u) - np.log(2))


def test_log_prob_of_a_plain_gaussian_is_scipys():
    action = jnp.array([0.7, -3.0, 9.0])
    want = stats.norm.logpdf(action, LOC, SCALE).sum()
    np.testing.assert_allclose(plain().log_prob(action), want, rtol=1e-5)


def test_log_prob_of_a_squashed_gaussian_is_that_of_the_change_of_variables():
    u = jnp.array([0.75, -2.6, 30.0])
    want = squashed_log_prob(*(np.asarray(x, float) for x in (u, LOC, SCALE)))
    np.testing.assert_allclose(squashed().log_prob(u), want.sum(), rtol=1e-5)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_a_squashed_density_integrates_to_the_probability_between_two_actions(scale):
    one = purerl.SquashedGaussian(jnp.array([0.2]), jnp.array([scale]))
    actions = np.linspace(-0.95, 0.95, 4001)
    density = jnp.exp(jax.vmap(one.log_prob)(jnp.arctanh(actions)[:, None]))
    want = np.diff(stats.norm.cdf(np.arctanh([-0.95, 0.95]), 0.2, scale))
    np.testing.assert_allclose(integrate.trapezoid(density, actions), want[0], atol=1e-4)


@pytest.mark.parametrize("loc", [0.0, -8.0, 60.0])
def test_the_mean_score_of_samples_is_0_also_where_their_squash_rounds_to_a_bound(loc):
    def log_prob(parameters, action):
        return purerl.SquashedGaussian(parameters[0], jnp.exp(parameters[1])).log_prob(action)

    parameters = jnp.array([[loc], [np.log(0.5)]])
    distribution = purerl.SquashedGaussian(parameters[0], jnp.exp(parameters[1]))
    actions = jax.vmap(distribution.sample)(jax.random.split(jax.random.key(0), 100_000))
    scores = jax.jit(jax.vmap(jax.grad(log_prob), (None, 0)))(parameters, actions)
    # Four standard errors: Fisher's information is 1 / scale² and 2.
    np.testing.assert_array_less(abs(scores.mean((0, 2))), 4 * np.sqrt([4, 2]) / 100_000**0.5)


def test_entropy_of_a_plain_gaussian_is_scipys():
    np.testing.assert_allclose(plain().entropy(), stats.norm.entropy(LOC, SCALE).sum(), rtol=1e-5)


def integrals(loc, scale):
    """Entropy of `tanh(u)`, and its derivatives by `loc` and `scale`, as sums over small steps."""
    step = 0.02 * min(1, 1 / scale)
    z = np.arange(-9, 9, step)
    u, weight = loc + scale * z, stats.norm.pdf(z) * step
    by_u = -2 * np.tanh(u)
    surprise = -squashed_log_prob(u, loc, scale)
    return weight @ np.stack([surprise, by_u, by_u * z], axis=1) + [0, 0, 1 / scale]


@pytest.mark.parametrize(("bits", "rtol"), [(64, 3e-8), (32, 1e-6)])
def test_entropy_of_a_squashed_gaussian_and_its_gradient_are_the_integrals(bits, rtol):
    with jax.enable_x64(bits == 64):
        grid = np.meshgrid([0.0, 0.1, 1.0, -3.0, 10.0, 100.0], [0.01, 0.3, 1.0, 4.0, 20.0, 1e3])
        loc, scale = (x.reshape(-1, 1) for x in grid)

        def entropy(loc, scale):
            return purerl.SquashedGaussian(loc, scale).entropy()

        by_both = jax.jit(jax.vmap(jax.value_and_grad(entropy, (0, 1))))
        value, gradient = by_both(jnp.asarray(loc), jnp.asarray(scale))
        assert value.dtype == f"float{bits}"
    found = np.stack([value, *(x[:, 0] for x in gradient)], axis=1)
    want = [integrals(*pair) for pair in zip(loc[:, 0], scale[:, 0], strict=True)]
    np.testing.assert_allclose(found, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("make", [plain, squashed])
def test_the_mean_log_prob_of_samples_is_the_entropy_negated(make):
    distribution = make()
    actions = jax.vmap(distribution.sample)(jax.random.split(jax.random.key(0), 20_000))
    log_prob = jax.vmap(distribution.log_prob)(actions)
    error = 4 * float(log_prob.std()) / 20_000**0.5  # four standard errors
    np.testing.assert_allclose(log_prob.mean(), -distribution.entropy(), atol=error + 1e-2)


def test_samples_squashed_lie_within_the_bounds_and_the_mode_is_the_median():
    distribution = squashed()
    actions = jax.vmap(distribution.sample)(jax.random.split(jax.random.key(0), 20_000))
    actions, mode = distribution.squash(actions), distribution.squash(distribution.mode())
    assert jnp.all((actions >= -1) & (actions <= 1))
    np.testing.assert_allclose(mode, np.tanh(LOC), rtol=1e-6)
    np.testing.assert_allclose(jnp.median(actions, axis=0), mode, atol=0.05)


def test_the_mode_of_a_plain_gaussian_is_its_centre():
    np.testing.assert_array_equal(plain().mode(), LOC)


def test_the_gradient_of_the_entropy_is_finite_and_grows_with_a_small_scale():
    def entropy(scale):
        return purerl.SquashedGaussian(LOC, scale).entropy()

    gradient = jax.grad(entropy)(jnp.full(3, 0.1))
    assert jnp.all(jnp.isfinite(gradient))
    assert jnp.all(gradient > 0)
