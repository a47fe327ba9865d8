"""Products over rows, turned over: the same numbers, and nothing else is touched."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purerl.products import with_rows_turned


def of(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def barriers(function, arg):
    jaxpr = jax.make_jaxpr(with_rows_turned(function))(arg).jaxpr
    return sum(each.primitive.name == "optimization_barrier" for each in jaxpr.eqns)


@pytest.mark.parametrize(("m", "n"), [(2, 5), (5, 2), (4, 4), (1, 3), (3, 1)])
def test_a_product_over_rows_is_the_loop_over_them(m, n):
    args = a, b = of((7, m)), of((7, n), 1)

    def product(args):
        return jax.lax.dot_general(args[0], args[1], (((0,), (0,)), ((), ())))

    expected = sum(np.outer(x, y) for x, y in zip(np.asarray(a), np.asarray(b), strict=True))
    np.testing.assert_allclose(with_rows_turned(product)(args), expected, rtol=1e-5, atol=1e-6)
    assert barriers(product, args) == (2 if m < n else 1)


def test_rows_of_several_axes_and_mapped_over_seeds():
    def product(args):
        return jax.lax.dot_general(args[0], args[1], (((0, 1, 2), (0, 1, 2)), ((), ())))

    args = of((6, 2, 3, 4, 5)), of((6, 2, 3, 4, 8), 1)
    found = jax.vmap(with_rows_turned(product))(args)
    expected = np.einsum("sabci,sabco->sio", *map(np.asarray, args))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert barriers(product, jax.tree.map(lambda x: x[0], args)) == 2


def test_only_products_over_rows_are_turned_and_with_all_that_was_asked_of_them():
    def others(args):
        x, w = args
        dots = jnp.einsum("ri,rj->rij", x, x), jnp.einsum("ri,ri->r", x, x), x @ w, w @ w.T
        return dots, jnp.vdot(w, w), {"sorted": jnp.sort(x)}

    args = of((6, 3)), of((3, 3), 1)
    assert barriers(others, args) == 0
    for found, expected in zip(
        jax.tree.leaves(with_rows_turned(others)(args)), jax.tree.leaves(others(args)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)

    def asked(half):
        how: Any = {"precision": "highest", "preferred_element_type": jnp.float32}
        return jax.lax.dot_general(half, half, (((0,), (0,)), ((), ())), **how)

    half = of((6, 3)).astype(jnp.bfloat16)
    assert barriers(asked, half) == 1
    jaxpr = jax.make_jaxpr(with_rows_turned(asked))(half).jaxpr
    (dot,) = (each for each in jaxpr.eqns if each.primitive.name == "dot_general")
    assert dot.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
    assert dot.params["preferred_element_type"] == jnp.float32


def test_the_gradient_of_any_layer_is_one():
    """Of weights that are stored as rows or as columns, under jit, of one example mapped."""
    x = of((16, 3))

    def loss(w):
        return jnp.sum(jax.nn.relu(jax.vmap(jax.jit(lambda x: w["in"] @ x))(x) @ w["out"]) ** 2)

    w = {"in": of((5, 3)), "out": of((5, 2), 1)}
    gradient = jax.grad(loss)
    for found, expected in zip(
        jax.tree.leaves(with_rows_turned(gradient)(w)), jax.tree.leaves(gradient(w)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert barriers(gradient, w) >= 2
