"""A function as equations: computed again they give what the function gives."""

import jax
import jax.numpy as jnp
import numpy as np

from purerl.compute.jaxprs import bind, eval_program, trace_program

TABLE = np.arange(6.0, dtype=np.float32).reshape(2, 3)


def of_many_kinds(x, pair):
    """Constants, literals, nested jit, several results of one operation, and an input unchanged."""
    inner = jax.jit(lambda x, y: (x * 2.0, jax.jit(jnp.sin)(y) + TABLE))
    doubled, shifted = inner(x, pair["a"])
    total = jax.lax.cond(pair["b"] > 0, jnp.sum, jnp.max, shifted)
    values, index = jax.lax.top_k(doubled, 2)
    return {"values": values, "index": index}, (total, pair["b"], 3.0)


def test_equations_in_order_are_the_function():
    args = jnp.arange(3.0), {"a": jnp.ones((2, 3)), "b": jnp.float32(1)}
    program = trace_program(of_many_kinds, *args)
    assert "jit" not in {equation.eqn.primitive.name for equation in program.equations}
    found, expected = eval_program(program, *args), of_many_kinds(*args)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_a_rule_computes_an_equation_in_another_way():
    def doubled_sine(equation, inputs):
        factor = 2 if equation.eqn.primitive.name == "sin" else 1
        return [factor * out for out in bind(equation, inputs)]

    program = trace_program(lambda x: jax.jit(jnp.sin)(x) + 1.0, jnp.float32(0.5))
    found = eval_program(program, jnp.float32(0.5), rule=doubled_sine)
    np.testing.assert_allclose(found, 2 * np.sin(0.5) + 1, rtol=1e-6)
