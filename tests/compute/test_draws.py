"""Draws in one flat axis: the numbers of jax, whatever they are drawn from and in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purerl.compute.draws import flat_draws
from purerl.compute.mesh import ALONE, layout_of, make_mesh

SHAPES = [(), (1,), (5,), (2, 24, 4, 1), (0, 3), (300,), (17, 31)]


def draw_much(key):
    """Draws of every kind, of one key and of many, one after another and beside each other."""
    first, second, third = jax.random.split(key, 3)
    keys = jax.random.split(first, (5, 4))
    folded = jax.vmap(jax.random.fold_in)(keys[:, 0], jnp.arange(5))
    return {
        "keys": jax.random.key_data(keys),
        "folded": jax.random.key_data(jax.random.fold_in(second, 7)),
        "each": jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (3,))))(keys),
        "of folded": jax.vmap(lambda key: jax.random.bits(key, (2, 6, 1)))(folded),
        "integers": jax.random.randint(second, (7,), -3, 9),
        "bytes": jax.random.bits(third, (300,), jnp.uint8),
        "shuffled": jax.random.permutation(third, 40),
        "in a branch": jax.lax.cond(
            jax.random.bernoulli(second), jax.random.uniform, lambda key: 2.0, third
        ),
        "in a loop": jax.lax.scan(lambda x, key: (x + jax.random.normal(key), None), 0.0, keys[0]),
        "constant": jax.random.uniform(jax.random.key(3), (2,)),
    }


def assert_same_draws(function, *args, map_it=jax.jit, layout=ALONE):
    """Under jit by default: one program for both, instead of one for each operation."""

    def both(*args):
        return flat_draws(function, layout)(*args), function(*args)

    found, expected = map_it(both)(*args)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def num_draws(function, *args, layout=ALONE):
    return str(jax.make_jaxpr(flat_draws(function, layout))(*args)).count("threefry2x32")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [jax.random.bits, jax.random.normal])
def test_bits_of_any_shape(kind, shape):
    assert_same_draws(lambda key: kind(key, shape), jax.random.key(1))


def test_draws_are_those_of_jax():
    key = jax.random.key(2)
    assert_same_draws(draw_much, key, map_it=lambda function: function)
    assert_same_draws(draw_much, key)
    keys = jax.random.split(key, 3)
    assert_same_draws(draw_much, keys, map_it=lambda function: jax.jit(jax.vmap(function)))


def test_draws_that_do_not_depend_on_each_other_are_one():
    def three_of_a_split(key):
        return [jax.random.bits(each, (4, 1)) for each in jax.random.split(key, 3)]

    assert num_draws(three_of_a_split, jax.random.key(0)) == 2  # the split; all bits


def test_other_keys_are_left_to_jax():
    for impl in ("rbg", "unsafe_rbg"):
        key = jax.random.key(0, impl=impl)
        assert_same_draws(lambda key: jax.random.normal(key, (3, 2)), key)
        assert num_draws(lambda key: jax.random.normal(key, (3, 2)), key) == 0


def test_numbers_that_depend_on_their_shape_are_left_to_jax():
    with jax.threefry_partitionable(False):
        assert_same_draws(draw_much, jax.random.key(4))
        assert num_draws(draw_much, jax.random.key(4)) == 0


@pytest.mark.parametrize("envs", [1, 2])
def test_within_a_mesh(envs):
    mesh = make_mesh(jax.devices()[:2], envs)
    assert len(mesh.devices.flat) == 2
    with jax.set_mesh(mesh):
        assert_same_draws(draw_much, jax.random.key(5), layout=layout_of(mesh))
        found = num_draws(draw_much, jax.random.key(5), layout=layout_of(mesh))
        assert (found > 0) == (envs == 1)
