"""A scan with its draws before the loop: the same numbers, and nothing drawn inside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purerl
from purerl.compute.hoisting import UNROLL, scan_hoisting_draws
from purerl.rollout import collect, reset_envs
from purerl.training import init


def noisy(carry, key):
    """A body of every kind: draws, jitted functions, branches, and an image made of a draw."""
    first, second = jax.random.split(key)
    noise = jax.random.normal(first, (3,))
    place = jax.random.randint(second, (), 0, 8)
    image = jnp.zeros((8, 8)).at[place].set(1.0)
    jitted = jax.jit(lambda x, y: x * 0.9 + jnp.sum(y))
    total = jax.lax.cond(place > 3, lambda x: x + 1, lambda x: x - 1, jitted(carry["x"], noise))
    return {"x": total, "image": image}, (total, noise, place, jnp.sum(image * carry["image"]))


START = {"x": jnp.float32(0), "image": jnp.zeros((8, 8))}


@pytest.mark.parametrize("length", [1, 5, 2 * UNROLL + 3])
def test_it_is_the_plain_scan(length):
    keys = jax.random.split(jax.random.key(0), length)
    scans = (scan_hoisting_draws, jax.lax.scan)
    found, expected = jax.jit(lambda: [scan(noisy, START, keys) for scan in scans])()
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_mapped_over_keys_and_starts_and_differentiated():
    keys = jax.vmap(lambda key: jax.random.split(key, 4))(jax.random.split(jax.random.key(1), 3))
    starts = {"x": jnp.arange(3.0), "image": jnp.zeros((3, 8, 8))}

    def end(scan):
        return lambda start, keys: scan(noisy, start, keys)[0]["x"]

    def slope(scan):
        return jax.vmap(jax.grad(lambda x, keys: end(scan)({**START, "x": x}, keys)))

    @jax.jit
    def both(starts, keys):
        ends = [jax.vmap(end(scan))(starts, keys) for scan in (scan_hoisting_draws, jax.lax.scan)]
        return ends, slope(scan_hoisting_draws)(starts["x"], keys)

    (found, expected), slopes = both(starts, keys)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(slopes, 0.9**4, rtol=1e-6)


def in_loops(jaxpr, inside=False):
    """The names of the primitives inside a scan's body, at any depth."""
    names = set()
    for equation in jaxpr.eqns:
        if inside:
            names.add(equation.primitive.name)
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda each: hasattr(each, "eqns") or hasattr(each, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                names |= in_loops(inner, inside or equation.primitive.name == "scan")
    return names


def test_nothing_is_drawn_inside_the_loop_of_a_rollout():
    config = purerl.vpg("CartPole-v1", num_envs=4, rollout_length=8, total_steps=32)
    policy = jax.eval_shape(init, jax.random.key(0), config).learner.policy

    def act(key, policy):
        return collect(key, policy, reset_envs(key, config), config)

    def plain(key):
        return jax.lax.scan(noisy, START, jax.random.split(key, 4))

    assert "random_bits" in in_loops(jax.make_jaxpr(plain)(jax.random.key(0)).jaxpr)
    found = in_loops(jax.make_jaxpr(act)(jax.random.key(0), policy).jaxpr)
    assert "dot_general" in found
    assert not {name for name in found if name.startswith("random_")}


def test_what_grows_is_made_in_the_step_that_needs_it():
    keys = jax.random.split(jax.random.key(0), 5)
    closed = jax.make_jaxpr(lambda: scan_hoisting_draws(noisy, START, keys))()
    waiting = [
        variable.aval.shape
        for equation in closed.jaxpr.eqns
        for variable in equation.outvars
        if variable.aval.shape[:1] == (5,)
    ]
    assert waiting
    assert (5, 8, 8) not in waiting
