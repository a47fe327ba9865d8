"""Pytrees chosen between, checked, and packed into few arrays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purerl
from purerl.compute.trees import has_no_nan, pack, stays_finite, tree_where, unpack


def test_what_is_packed_in_a_loop_comes_out_as_it_was():
    def step(count, _):
        tree = {"b": count * 0.5, "a": (count, -1.0 * count), "c": count > 1}
        return count + 1, (pack(tree), tree)

    _, (packed, trees) = jax.lax.scan(step, jnp.int32(0), length=3)
    assert packed.floats.shape == (3, 2)
    jax.tree.map(np.testing.assert_array_equal, unpack(packed), trees)


def test_metrics_leave_a_loop_in_one_array_and_their_count():
    names = [field.name for field in dataclasses.fields(purerl.Metrics)]
    values = dict.fromkeys(names, jnp.float32(0)) | {"num_episodes": jnp.int32(2)}
    metrics = purerl.Metrics(**values)
    packed = pack(metrics)
    assert packed.floats.shape == (len(names) - 1,)
    assert [leaf.dtype for leaf in jax.tree.leaves(packed.others)] == [jnp.int32]


def test_one_of_two_trees_is_chosen_leaf_by_leaf():
    trees = {"x": jnp.ones(2)}, {"x": jnp.zeros(2)}
    for condition, expected in ((True, 1), (False, 0)):
        np.testing.assert_array_equal(tree_where(jnp.array(condition), *trees)["x"], [expected] * 2)


@pytest.mark.parametrize(
    ("x", "before", "sound"),
    [
        (0.0, 1.0, True),
        (np.nan, 1.0, False),
        (np.nan, np.nan, False),
        (-np.inf, 1.0, False),
        (-np.inf, -np.inf, True),
        (np.inf, np.nan, False),
        (1.0, np.inf, True),
    ],
)
def test_one_number_that_is_not_sound_is_found(x, before, sound):
    def tree(number):
        return {"x": jnp.ones(3).at[1].set(number), "n": jnp.arange(2), "empty": jnp.zeros((0, 2))}

    assert bool(stays_finite(tree(x), tree(before))) is sound
    assert bool(has_no_nan(tree(x))) is not np.isnan(x)


def test_where_there_are_no_numbers_all_are_sound():
    assert bool(stays_finite({"n": jnp.arange(2)}, {"n": jnp.arange(2)}))
    assert bool(has_no_nan({"n": jnp.arange(2)}))
