"""Rows in blocks: the same results as of all at once, on the path of an accelerator too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe

import purerl
from purerl import blocks
from purerl.rollout import collect, reset_envs
from purerl.update import update


@pytest.mark.parametrize(
    ("num_rows", "expected"),
    [
        (1, 1),
        (1024, 1024),
        (2048, 1024),
        (6000, 1000),
        (8192, 1024),
        (8191, 8191),
        (4099 * 2, 8198),
        (1538, 769),
    ],
)
def test_rows_are_divided_into_blocks_of_one_size_where_there_is_one(num_rows, expected):
    assert blocks.block_rows(num_rows) == expected


@pytest.fixture
def rows():
    return {"x": jax.random.normal(jax.random.key(0), (4096, 3)), "w": jnp.arange(4096.0)}


@pytest.fixture
def elsewhere(monkeypatch):
    """Take the path of a platform that is not a CPU."""

    def default(*args, cpu, default):
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", default)


def square(row):
    return {"sum": jnp.sum(row["x"]) * row["w"], "x": row["x"] ** 2}


def total(rows):
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), jax.vmap(square)(rows))


def test_rows_are_mapped_in_blocks(rows, elsewhere):
    assert "scan" in str(jax.make_jaxpr(lambda rows: blocks.map_rows(square, rows))(rows))
    found, expected = blocks.map_rows(square, rows), jax.vmap(square)(rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


def test_sums_over_rows_are_added_up_block_by_block(rows, elsewhere):
    assert "scan" in str(jax.make_jaxpr(lambda rows: blocks.sum_rows(total, rows))(rows))
    found, expected = blocks.sum_rows(total, rows), total(rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


def test_an_update_in_blocks_is_that_of_the_whole_batch(monkeypatch):
    config = purerl.vpg(Probe("match", length=3), num_envs=32, rollout_length=128, hidden=(8,))
    learner = jax.jit(purerl.init)(jax.random.key(0), config).learner
    envs = reset_envs(jax.random.key(1), config)
    rollout = collect(jax.random.key(2), learner.policy, envs, config)[1]

    def updated():
        return jax.jit(lambda: update(jax.random.key(3), learner, rollout, config))()

    (expected, told), taken = updated(), []

    def default(*args, cpu, default):
        taken.append(default)
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", default)
    found, also_told = updated()
    assert len(taken) > 3
    # Adam divides by the size of a gradient: of one near 0, by its rounding error.
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)
    for name, value in told.items():
        np.testing.assert_allclose(also_told[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("num_rows", "num_devices", "on_cpu", "elsewhere"),
    [(1024, 2, 1, 1), (2048, 2, 2, 1), (4096, 2, 4, 4), (4096, 1, 1, 4)],
)
def test_blocks_on_a_cpu_and_elsewhere(monkeypatch, num_rows, num_devices, on_cpu, elsewhere):
    """The caches of a core are smaller than what an accelerator, or all cores, have room for."""
    rows = {"x": jnp.ones((num_rows, 3)), "w": jnp.ones(num_rows)}
    paths = {}

    def platform_dependent(*args, cpu, default):
        paths.update(cpu=cpu, default=default)
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", platform_dependent)
    monkeypatch.setattr(blocks, "over_seeds", lambda: num_devices)
    for in_blocks, function in ((blocks.map_rows, square), (blocks.sum_rows, total)):
        in_blocks(function, rows)
        for path, count in (("cpu", on_cpu), ("default", elsewhere)):
            jaxpr = jax.make_jaxpr(paths[path])(rows).jaxpr
            scans = [each for each in jaxpr.eqns if each.primitive.name == "scan"]
            assert [each.params["length"] for each in scans] == [count] * (count > 1)
