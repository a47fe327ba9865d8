"""Rows in blocks: the same results as of all at once, on the path of an accelerator too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe

import purerl
from purerl import update
from purerl.compute.mapping import program_over_seeds
from purerl.compute.mesh import Layout, make_mesh
from purerl.compute.rows import block_length, flatten_rows, map_rows, sum_rows, take_rows
from purerl.rollout import collect, reset_envs


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
    assert block_length(num_rows) == expected


@pytest.fixture
def rows():
    return {"x": jax.random.normal(jax.random.key(0), (4096, 3)), "w": jnp.arange(4096.0)}


@pytest.fixture
def elsewhere(monkeypatch):
    """Take the path of a platform that is not a CPU."""

    def default(*args, cpu, default):
        return default(*args)

    monkeypatch.setattr("purerl.compute.rows.by_platform", default)


def square(row):
    return {"sum": jnp.sum(row["x"]) * row["w"], "x": row["x"] ** 2}


squared = jax.vmap(square)


def total(rows):
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), squared(rows))


def test_rows_are_mapped_in_blocks(rows, elsewhere):
    assert "scan" in str(jax.make_jaxpr(lambda rows: map_rows(square, rows))(rows))
    found, expected = jax.jit(lambda rows: (map_rows(square, rows), squared(rows)))(rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


def test_sums_over_rows_are_added_up_block_by_block(rows, elsewhere):
    assert "scan" in str(jax.make_jaxpr(lambda rows: sum_rows(total, rows))(rows))
    found, expected = jax.jit(lambda rows: (sum_rows(total, rows), total(rows)))(rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


def test_an_update_in_blocks_is_that_of_the_whole_batch(monkeypatch):
    config = purerl.vpg(Probe("match", length=3), num_envs=32, rollout_length=128, hidden=(8,))

    @jax.jit
    def start(config):
        learner = purerl.init(jax.random.key(0), config).learner
        envs = reset_envs(jax.random.key(1), config)
        return learner, collect(jax.random.key(2), learner.policy, envs, config)[1]

    learner, rollout = start(config)

    def updated():
        return jax.jit(lambda: update.update(jax.random.key(3), learner, rollout, config))()

    (expected, told), taken = updated(), []

    def default(*args, cpu, default):
        taken.append(default)
        return default(*args)

    for module in ("hoisting", "platforms", "rows"):
        monkeypatch.setattr(f"purerl.compute.{module}.by_platform", default)
    found, also_told = updated()
    assert len(taken) > 3
    # Adam divides by the size of a gradient: of one near 0, by its rounding error.
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)
    for name, value in told.items():
        np.testing.assert_allclose(also_told[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("num_rows", "num_devices", "on_cpu", "on_accelerator"),
    [(1024, 2, 1, 1), (2048, 2, 2, 1), (4096, 2, 4, 4), (4096, 1, 1, 4)],
)
def test_blocks_on_a_cpu_and_elsewhere(monkeypatch, num_rows, num_devices, on_cpu, on_accelerator):
    """The cache of a core is smaller than what an accelerator, or all cores, have room for."""
    keys = jax.random.split(jax.random.key(1))
    shapes = {"x": (num_rows, 3), "w": (num_rows,)}
    rows = {
        name: jax.random.normal(key, shapes[name]) for name, key in zip(shapes, keys, strict=True)
    }
    layout = Layout(seeds=num_devices)
    whole = jax.jit(lambda rows: (squared(rows), total(rows)))(rows)
    for in_blocks, function, expected in zip(
        (map_rows, sum_rows), (square, total), whole, strict=True
    ):
        for path, count in (("cpu", on_cpu), ("default", on_accelerator)):

            def take(*args, path=path, **paths):
                return paths[path](*args)

            monkeypatch.setattr("purerl.compute.rows.by_platform", take)
            program = jax.jit(lambda rows, call=in_blocks, f=function: call(f, rows, layout))
            jaxpr = program.trace(rows).jaxpr
            scans = [each for each in jaxpr.jaxpr.eqns if each.primitive.name == "scan"]
            assert [each.params["length"] for each in scans] == [count] * (count > 1)
            for a, b in zip(jax.tree.leaves(program(rows)), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("num_devices", "is_divided"), [(1, False), (2, True)])
def test_seeds_on_several_devices_of_a_cpu_are_computed_in_blocks(num_devices, is_divided):
    """And nowhere with products over rows, which `matmul.py` transposes."""

    def of_seed(seed, layout):
        w, rows = seed

        def gradient(rows):
            return jax.grad(lambda w: jnp.sum(jnp.tanh(jax.vmap(lambda x: x @ w)(rows))))(w)

        return sum_rows(gradient, rows, layout)

    keys = jax.random.split(jax.random.key(0))
    seeds = jax.random.normal(keys[0], (2, 4, 3)), jax.random.normal(keys[1], (2, 2048, 4))
    mesh = make_mesh(jax.devices()[:num_devices])
    program = program_over_seeds(of_seed, mesh, block=2, with_layout=True)
    text = program.lower(seeds).compile().as_text()
    assert ("while(" in text) == is_divided
    dots = [line for line in text.splitlines() if " dot(" in line]
    assert dots
    assert not any("lhs_contracting_dims={0}" in line for line in dots)
    w, rows = (np.asarray(each) for each in seeds)
    expected = np.stack([x.T @ (1 - np.tanh(x @ w) ** 2) for w, x in zip(w, rows, strict=True)])
    np.testing.assert_allclose(program(seeds), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("num_rows", "num_traces"), [(1024, 1), (4096, 2)])
def test_what_both_ways_take_whole_is_traced_once(num_rows, num_traces):
    """Without a mesh, where both are traced."""
    traced = []

    def total(rows):
        traced.append(rows)
        return jnp.sum(rows)

    rows = jnp.ones(num_rows)
    assert jax.jit(lambda rows: sum_rows(total, rows))(rows) == num_rows
    assert len(traced) == num_traces
    mapped = jax.jit(lambda rows: map_rows(total, rows))(rows)
    assert mapped.shape == (num_rows,)
    assert len(traced) == 2 * num_traces


def test_a_row_may_be_a_sequence_which_nothing_looks_into(elsewhere):
    rows = {"x": jax.random.normal(jax.random.key(0), (4096, 5, 2)), "at": jnp.arange(4096)}

    def length(row):
        return jnp.sum(row["x"], axis=-1) + row["at"]

    both = jax.jit(lambda rows: (map_rows(length, rows), jax.vmap(length)(rows)))(rows)
    np.testing.assert_array_equal(*both)
    order = jnp.array([7, 0, 4095])
    taken = take_rows(rows, order)
    np.testing.assert_array_equal(taken["x"], np.asarray(rows["x"])[order])
    rollout = {"x": rows["x"].reshape(64, 64, 5, 2), "at": rows["at"].reshape(64, 64)}
    jax.tree.map(np.testing.assert_array_equal, flatten_rows(rollout), rows)
