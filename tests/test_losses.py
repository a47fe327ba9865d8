"""Weighted means, and each loss worked by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purerl.config.settings import HYPER_DEFAULTS
from purerl.losses import (
    explained_variance,
    normalize,
    score_function_loss,
    squared_error,
    weighted_mean,
)
from purerl.types import Hyperparams

HALVES: Any = dict.fromkeys(HYPER_DEFAULTS, jnp.float32(0.5))
HYPER = Hyperparams(**HALVES)


def test_weighted_mean_divides_by_the_sum_of_the_weights():
    assert weighted_mean(jnp.array([1.0, 3.0, 8.0]), jnp.array([1.0, 2.0, 1.0])) == 3.75


def test_weighted_mean_is_blind_to_nan_where_the_weight_is_0():
    x, weight = jnp.array([2.0, jnp.nan, 4.0, jnp.inf]), jnp.array([1.0, 0.0, 1.0, 0.0])
    value, gradient = jax.value_and_grad(weighted_mean)(x, weight)
    assert value == 3
    np.testing.assert_array_equal(gradient, [0.5, 0.0, 0.5, 0.0])


def test_weighted_mean_shows_nan_where_the_weight_is_not_0():
    assert jnp.isnan(weighted_mean(jnp.array([1.0, jnp.nan]), jnp.ones(2)))


def test_weighted_mean_of_no_weight_is_0():
    assert weighted_mean(jnp.array([1.0, jnp.nan]), jnp.zeros(2)) == 0


def test_normalize_gives_weighted_mean_0_and_deviation_1():
    x, weight = jnp.array([[1.0, 5.0], [-3.0, 1e6]]), jnp.array([[1.0, 1.0], [1.0, 0.0]])
    got = np.asarray(normalize(x, weight))[np.asarray(weight) > 0]
    np.testing.assert_allclose(got, (np.array([1, 5, -3]) - 1) / np.std([1, 5, -3]), rtol=1e-5)


def test_normalize_of_a_constant_is_0():
    np.testing.assert_array_equal(normalize(jnp.full(4, 3.0), jnp.ones(4)), 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param([1.0, 2.0, 3.0, 4.0], 1.0, id="perfect"),
        pytest.param([6.0, 7.0, 8.0, 9.0], 1.0, id="perfect but for a constant"),
        pytest.param([7.0, 7.0, 7.0, 7.0], 0.0, id="a constant"),
        pytest.param([4.0, 3.0, 2.0, 1.0], -3.0, id="worse than a constant"),
    ],
)
def test_explained_variance(value, expected):
    value_target = jnp.array([1.0, 2.0, 3.0, 4.0])
    got = explained_variance(jnp.array(value), value_target, jnp.ones(4))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_explained_variance_is_nan_for_targets_that_do_not_vary():
    assert jnp.isnan(explained_variance(jnp.arange(3.0), jnp.ones(3), jnp.ones(3)))


def test_explained_variance_leaves_out_weight_0():
    value, target = jnp.array([1.0, 2.0, jnp.nan]), jnp.array([1.0, 2.0, 50.0])
    np.testing.assert_allclose(explained_variance(value, target, jnp.array([1.0, 1.0, 0.0])), 1)


def test_score_function_loss_by_hand():
    log_prob = jnp.array([-0.5, -2.0, -1.0])
    advantage = jnp.array([2.0, -1.0, 100.0])
    loss = score_function_loss(log_prob, jnp.full(3, 9.0), advantage, HYPER)
    np.testing.assert_allclose(loss, [1.0, -2.0, 100.0])


def test_squared_error_by_hand():
    value, target = jnp.array([1.0, 4.0, 7.0]), jnp.array([3.0, 3.0, 0.0])
    loss = squared_error(value, jnp.full(3, 9.0), target, HYPER)
    np.testing.assert_allclose(loss, [4.0, 1.0, 49.0])


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 9.5617, 50.7])
def test_normalize_of_many_equal_numbers_is_0_and_not_their_rounding_error(constant):
    x, weight = jnp.full(2048, constant), jnp.ones(2048)
    np.testing.assert_allclose(normalize(x, weight), 0, atol=1e-3)
