"""Products over rows, transposed: the same numbers, and nothing else is touched."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purerl.compute.jaxprs import eval_program, trace_program
from purerl.compute.matmul import transpose_matmul


def with_transpose(function):
    return lambda arg: eval_program(trace_program(function, arg), arg, rule=transpose_matmul)


def normal(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def barriers(function, arg, platform="cpu"):
    lowered = jax.jit(with_transpose(function)).trace(arg).lower(lowering_platforms=(platform,))
    return lowered.as_text().count("stablehlo.optimization_barrier")


@pytest.mark.parametrize(("m", "n"), [(2, 5), (5, 2), (4, 4), (1, 3), (3, 1)])
def test_a_product_over_rows_is_the_loop_over_them(m, n):
    args = a, b = normal((7, m)), normal((7, n), 1)

    def product(args):
        return jax.lax.dot_general(args[0], args[1], (((0,), (0,)), ((), ())))

    expected = sum(np.outer(x, y) for x, y in zip(np.asarray(a), np.asarray(b), strict=True))
    np.testing.assert_allclose(with_transpose(product)(args), expected, rtol=1e-5, atol=1e-6)
    assert barriers(product, args) == 2
    assert barriers(product, args, "cuda") == 0


def test_rows_of_several_axes_and_mapped_over_seeds():
    def product(args):
        return jax.lax.dot_general(args[0], args[1], (((0, 1, 2), (0, 1, 2)), ((), ())))

    args = normal((6, 2, 3, 4, 5)), normal((6, 2, 3, 4, 8), 1)
    found = jax.vmap(with_transpose(product))(args)
    expected = np.einsum("sabci,sabco->sio", *map(np.asarray, args))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert barriers(product, jax.tree.map(lambda x: x[0], args)) == 2


def test_only_products_over_rows_are_turned_and_with_all_that_was_asked_of_them():
    def others(args):
        x, w = args
        dots = jnp.einsum("ri,rj->rij", x, x), jnp.einsum("ri,ri->r", x, x), x @ w, w @ w.T
        return dots, jnp.vdot(w, w), {"sorted": jnp.sort(x)}

    args = normal((6, 3)), normal((3, 3), 1)
    assert barriers(others, args) == 0
    for found, expected in zip(
        jax.tree.leaves(with_transpose(others)(args)), jax.tree.leaves(others(args)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)

    def asked(half):
        how: Any = {"precision": "highest", "preferred_element_type": jnp.float32}
        return jax.lax.dot_general(half, half, (((0,), (0,)), ((), ())), **how)

    half = normal((6, 3)).astype(jnp.bfloat16)
    assert barriers(asked, half) == 2
    way = jax.make_jaxpr(with_transpose(asked))(half).jaxpr.eqns[-1].params["branches"][0]
    (dot,) = (each for each in way.eqns if each.primitive.name == "dot_general")
    assert dot.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
    assert dot.params["preferred_element_type"] == jnp.float32


@pytest.mark.parametrize(
    "precision", [("highest", "default"), jax.lax.DotAlgorithmPreset.F32_F32_F32]
)
def test_products_that_may_treat_their_operands_differently_stay_as_they_are(precision):
    def product(args):
        over = (((0,), (0,)), ((), ()))
        return jax.lax.dot_general(args[0], args[1], over, precision=precision)

    assert barriers(product, (normal((7, 2)), normal((7, 2), 1))) == 0


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize(("m", "n"), [(4, 3), (3, 4), (4, 4)])
def test_a_cpu_is_given_no_product_over_rows_for_a_layer(m, n, is_transposed):
    """Of one example mapped, under jit."""
    x, w = normal((16, m)), normal((m, n), 1)

    def loss(w):
        return jnp.sum(jnp.tanh(jax.vmap(jax.jit(lambda x: x @ w))(x)) ** 2)

    gradient = jax.grad(loss)
    function = with_transpose(gradient) if is_transposed else gradient
    text = jax.jit(function).lower(w).compile().as_text() or ""
    dots = [line for line in text.splitlines() if " dot(" in line]
    assert len(dots) == 2
    assert any("lhs_contracting_dims={0}" in line for line in dots) != is_transposed
    np.testing.assert_allclose(function(w), gradient(w), rtol=1e-5, atol=1e-6)
