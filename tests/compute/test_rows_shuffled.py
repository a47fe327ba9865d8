"""Shuffles without a sort: permutations, and as good as uniform ones where it matters."""

import jax
import numpy as np
import pytest
from scipy import stats

from purerl.compute import rows

permutations = jax.jit(rows.permutations, static_argnums=(1, 2))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12, 100, 512, 1000, 8192])
def test_each_is_a_permutation(size):
    rows = np.asarray(permutations(jax.random.key(size), 5, size))
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(size), (5, 1)))


def test_each_place_takes_each_row_as_often_as_another():
    rows = np.asarray(permutations(jax.random.key(0), 50_000, 8))
    for place in range(8):
        assert stats.chisquare(np.bincount(rows[:, place], minlength=8)).pvalue > 1e-4


@pytest.mark.slow
def test_neighbours_part_and_pairs_are_as_often_apart_as_of_random_orders():
    rows = np.asarray(permutations(jax.random.key(1), 20_000, 512))
    distance = (rows[:, 1] - rows[:, 0]) % 512
    assert stats.chisquare(np.bincount(distance, minlength=512)[1:]).pvalue > 1e-4
    minibatch = np.argsort(rows, axis=1) // 128
    for other in (1, 2, 4, 256, 511):
        together = int(np.sum(minibatch[:, 0] == minibatch[:, other]))
        assert stats.binomtest(together, len(rows), 127 / 511).pvalue > 1e-4


def test_minibatches_are_as_mixed_as_random_ones():
    rows = np.asarray(permutations(jax.random.key(2), 20_000, 512))
    of_first_quarter = np.sum(rows[:, :128] < 128, axis=1)
    expected = stats.hypergeom(512, 128, 128)
    assert abs(of_first_quarter.mean() - expected.mean()) < 5 * expected.std() / np.sqrt(len(rows))
    assert 0.95 < of_first_quarter.var() / expected.var() < 1.05


def test_orders_of_a_call_and_of_two_keys_differ():
    found = np.concatenate([permutations(jax.random.key(key), 4, 64) for key in range(2)])
    assert len({tuple(order) for order in found}) == 8
