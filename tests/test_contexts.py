"""Within a mesh of the user's, or with keys elsewhere: the same agents, or one line of advice.

Most cases are only lowered: what goes wrong there goes wrong in tracing.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from probes import Probe

import purerl
from purerl.compute.mesh import Layout, make_mesh

NAMES = ("x", "envs", "seeds")  # a user's axis may have the name of one of purerl's
CONFIG = purerl.vpg(
    Probe("match", length=3, limit=True),
    num_envs=4,
    rollout_length=8,
    total_steps=4 * 8 * 4,
    hidden=(4,),
)
KEYS = purerl.seed_keys(0, 2)


def evaluate(key, state):
    return purerl.evaluate(key, state.learner.policy, CONFIG, num_episodes=2, max_steps=4)


ENTRIES: dict[str, Any] = {
    "init": lambda key, state: purerl.init(key, CONFIG),
    "train": lambda key, state: purerl.train(key, CONFIG),
    "train_step": lambda key, state: purerl.train_step(state, CONFIG),
    "advance": lambda key, state: purerl.advance(state, CONFIG, 2),
    "evaluate": evaluate,
}


REST = [entry for entry in ENTRIES if entry != "train"]


@pytest.fixture(scope="module")
def states():
    return jax.jit(jax.vmap(purerl.init, (0, None)))(KEYS, CONFIG)


@pytest.fixture(scope="module")
def expected():
    """What is trained without any mesh of the user's."""
    return purerl.train_seeds(KEYS, CONFIG)


def user_mesh(name, kind=AxisType.Auto, devices=None):
    return Mesh(np.array(jax.devices()[:2] if devices is None else devices), (name,), (kind,))


def assert_same(found, expected):
    """Up to rounding: the programs differ."""
    floats = [
        [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.number)]
        for tree in (found, expected)
    ]
    for leaf, other in zip(*floats, strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-4)


def in_shard_map(entry, name="x", check_vma=False):
    """An entry for one agent, on each device for its share of the agents."""
    return jax.jit(
        jax.shard_map(
            jax.vmap(entry),
            mesh=user_mesh(name),
            in_specs=P(name),
            out_specs=P(name),
            check_vma=check_vma,
        )
    )


@pytest.mark.parametrize(
    ("entry", "name"), [*[("train", name) for name in NAMES], *[(entry, "envs") for entry in REST]]
)
def test_within_a_shard_map(entry, name, states):
    in_shard_map(ENTRIES[entry], name).lower(KEYS, states)


def test_a_shard_map_trains_the_same_agents(states, expected):
    assert_same(in_shard_map(ENTRIES["train"], "envs")(KEYS, states), expected)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_shard_map_that_checks_is_refused_in_one_line(entry, states):
    with pytest.raises(ValueError, match=r"varies over 'x', .* give it check_vma=False") as error:
        in_shard_map(ENTRIES[entry], check_vma=True).lower(KEYS, states)
    assert "\n" not in str(error.value)


def test_hyperparameters_that_vary_in_a_shard_map_that_checks_are_refused_too():
    def of_rate(rate):
        config = CONFIG.replace(policy_learning_rate=rate)
        return purerl.train(jax.random.key(0), config)

    with pytest.raises(ValueError, match="give it check_vma=False"):
        in_shard_map(of_rate, check_vma=True).lower(jnp.array([1e-3, 1e-2]))


def test_within_a_shard_map_over_one_of_two_axes():
    mesh = Mesh(np.array(jax.devices()[:2]).reshape(2, 1), ("x", "envs"), (AxisType.Auto,) * 2)
    mapped = jax.shard_map(
        jax.vmap(lambda key: purerl.train(key, CONFIG)),
        mesh=mesh,
        axis_names={"x"},
        in_specs=P("x"),
        out_specs=P("x"),
        check_vma=False,
    )
    jax.jit(mapped).lower(KEYS)


KINDS = pytest.mark.parametrize(
    "kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"]
)


@KINDS
@pytest.mark.parametrize("entry", ENTRIES)
def test_within_a_mesh_that_is_set(entry, kind, states):
    mesh = user_mesh("envs", kind)
    one = jax.tree.map(lambda leaf: leaf[0], (KEYS, states))
    with jax.set_mesh(mesh):
        spread = jax.device_put((KEYS, states), NamedSharding(mesh, P("envs")))
        jax.jit(jax.vmap(ENTRIES[entry])).lower(*spread)
        jax.jit(ENTRIES[entry]).lower(*jax.device_put(one, NamedSharding(mesh, P())))


@KINDS
def test_a_mesh_that_is_set_trains_the_same_agents(kind, expected):
    mesh = user_mesh("envs", kind)
    with jax.set_mesh(mesh):
        keys = jax.device_put(KEYS, NamedSharding(mesh, P("envs")))
        found = jax.jit(jax.vmap(lambda key: purerl.train(key, CONFIG)))(keys)
    assert_same(found, expected)


def test_an_evaluation_within_a_mesh_that_is_set_and_without_jit(states):
    one = jax.tree.map(lambda leaf: leaf[0], (KEYS, states))
    without = evaluate(*one)
    with jax.set_mesh(user_mesh("envs", AxisType.Explicit)):
        assert_same(evaluate(*one), without)


@KINDS
def test_train_seeds_within_a_mesh_that_is_set_spreads_seeds_as_without(kind, expected):
    with jax.set_mesh(user_mesh("envs", kind)):
        states, metrics = purerl.train_seeds(KEYS, CONFIG)
        jax.jit(purerl.train_seeds).lower(KEYS, CONFIG)
    sharding: Any = states.step.sharding
    assert sharding.spec == P("seeds")
    assert_same((states, metrics), expected)


def test_train_seeds_within_a_shard_map():
    mapped = jax.shard_map(
        lambda keys: purerl.train_seeds(keys, CONFIG),
        mesh=user_mesh("seeds"),
        in_specs=P("seeds"),
        out_specs=P("seeds"),
        check_vma=False,
    )
    jax.jit(mapped).lower(KEYS)


def test_a_mesh_within_another_is_refused_in_one_line():
    def train(key):
        return purerl.train_seeds(KEYS, CONFIG, mesh=make_mesh(jax.devices()[:1]))

    with pytest.raises(ValueError, match=r"mesh cannot be given within .*; leave it out") as error:
        in_shard_map(train).lower(KEYS)
    assert "\n" not in str(error.value)


def test_a_run_within_a_mesh_that_is_set(tmp_path, expected):
    how: Any = {"progress": False, "evaluation_episodes": 2}
    with jax.set_mesh(user_mesh("envs", AxisType.Explicit)):
        run = purerl.run(CONFIG, 2, tmp_path / "run", **how)
        again = purerl.resume(tmp_path / "run", CONFIG, progress=False)
    for each in (run, again):
        np.testing.assert_allclose(each.metrics.value_loss, expected[1].value_loss, rtol=1e-3)


def test_a_run_within_a_trace_is_refused_in_one_line(tmp_path):
    configs, axes = purerl.sweep(CONFIG, discount=[0.9, 0.99])
    calls = {
        "purerl.run": lambda: purerl.run(CONFIG, 2, tmp_path / "run"),
        "purerl.resume": lambda: purerl.resume(tmp_path / "run"),
        "purerl.run_sweep": lambda: purerl.run_sweep((configs, axes), 2, tmp_path / "run"),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name} compiles by itself.* outside of") as error:
            jax.jit(call)()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def places():
    others = jax.devices()[1::-1]
    return {
        "another device": jax.devices()[1],
        "another mesh": NamedSharding(user_mesh("y", devices=others), P("y")),
        "a mesh of explicit axes": NamedSharding(user_mesh("y", AxisType.Explicit), P("y")),
    }


@pytest.mark.parametrize("place", places())
def test_train_seeds_brings_keys_and_config_from_where_they_lie(place, expected):
    keys = jax.device_put(KEYS, places()[place])
    config = jax.device_put(CONFIG, jax.devices()[1])
    assert_same(purerl.train_seeds(keys, config), expected)


@pytest.mark.parametrize("entry", ENTRIES)
def test_keys_on_explicit_axes_without_a_mesh_that_is_set(entry, states):
    args = jax.device_put((KEYS, states), places()["a mesh of explicit axes"])
    jax.jit(jax.vmap(ENTRIES[entry])).lower(*args)


def test_train_seeds_is_a_part_of_a_program_for_keys_on_explicit_axes():
    keys = jax.device_put(KEYS, places()["a mesh of explicit axes"])
    jax.jit(purerl.train_seeds).lower(keys, CONFIG)


@pytest.mark.parametrize("axes", [("envs",), ("seeds", "envs")])
def test_environments_are_spread_by_the_layout_and_not_by_the_names_of_a_mesh(axes):
    shape = (1,) * (len(axes) - 1) + (2,)
    mesh = Mesh(np.array(jax.devices()[:2]).reshape(shape), axes, (AxisType.Auto,) * len(axes))
    with jax.set_mesh(mesh):
        alone, spread = (
            str(
                jax.make_jaxpr(lambda key, layout=layout: purerl.train(key, CONFIG, layout=layout))(
                    KEYS[0]
                )
            )
            for layout in (Layout(), Layout(envs=2))
        )
    assert "sharding_constraint" not in alone
    assert "sharding_constraint" in spread
