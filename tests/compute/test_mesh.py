"""Seeds over one axis of devices, environments over another: the same agents, and who talks.

Eight virtual devices need a process of their own: `EIGHT` prints what it finds as JSON.
"""

import json
import math
import os
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ROOT
from jax.sharding import AxisType, Mesh
from trees import assert_bitwise_equal

import purerl
from purerl.compute.mapping import map_seeds
from purerl.compute.mesh import layout_of, make_mesh, require_mesh
from purerl.compute.rows import flatten_rows, row_numbers, unflatten_rows
from purerl.experiment.hosts.devices import mesh_from_dict, mesh_to_dict, parse_mesh

SMALL: Any = {"num_envs": 8, "rollout_length": 8, "hidden": (8,)}

EIGHT = """
import dataclasses, json, os, sys
import jax
import jax.numpy as jnp
import numpy as np
import purerl
from purerl.planning import hlo
from purerl.agents import state_shardings
from purerl.compute.mapping import CPU_OPTIONS, program_over_seeds
from purerl.compute.mesh import make_mesh

if "optimization_level=0" in os.environ.get("XLA_FLAGS", ""):  # as in `conftest.py`
    CPU_OPTIONS.clear()
sizes = {"num_envs": 8, "rollout_length": 8, "total_steps": 128, "hidden": (8,)}
configs = {
    "vpg": purerl.vpg("CartPole-v1", **sizes),
    "ppo": purerl.ppo("CartPole-v1", num_minibatches=4, epochs=2, **sizes),
    "normalized": purerl.a2c("Pendulum-v1", normalize_obs=True, normalize_reward=True, **sizes),
}
keys = purerl.seed_keys(0, 8)

def trained(config, mesh):
    how = {"shardings": state_shardings, "with_layout": True}
    program = program_over_seeds(purerl.train, mesh, **how)
    program = program.lower(keys, config).compile()
    module = hlo.parse_hlo(program.as_text())
    reduced = [
        {"opcode": each.opcode, "shape": each.shape}
        for instructions in module.computations.values()
        for each in instructions
        if each.opcode.removesuffix("-start") in hlo.COLLECTIVES
    ]
    states, metrics = program(keys, config)
    spread = {",".join(map(str, leaf.sharding.spec)) for leaf in jax.tree.leaves(states.envs)}
    return {
        "collectives": reduced,
        "metrics": {f.name: np.asarray(getattr(metrics, f.name)).tolist()
                    for f in dataclasses.fields(metrics)},
        "parameters": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(
            (states.learner.policy.arrays, states.learner.baseline.arrays))],
        "spread": sorted(spread),
    }

found = {}
for name in sys.argv[1:]:
    algo, devices, envs = name.split(":")
    mesh = make_mesh(jax.devices()[:int(devices)], int(envs))
    found[name] = trained(configs[algo], mesh)
print(json.dumps(found))
"""


def on_eight_devices(*layouts):
    """What `EIGHT` finds for layouts `CONFIG:DEVICES:ENVS`."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, *layouts],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def vpg():
    return on_eight_devices("vpg:1:1", "vpg:8:1", "vpg:8:2")


def assert_same_training(found, expected):
    for name, values in expected["metrics"].items():
        np.testing.assert_allclose(
            np.array(found["metrics"][name]), np.array(values), rtol=1e-3, atol=1e-5, err_msg=name
        )
    # Adam moves a weight by up to its rate a step, 3e-3 or more: 1e-4 is far below that.
    for leaf, other in zip(found["parameters"], expected["parameters"], strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-4)


def test_eight_devices_train_the_seeds_of_one(vpg):
    assert_same_training(vpg["vpg:8:1"], vpg["vpg:1:1"])


def test_seeds_on_eight_devices_have_nothing_to_say_to_each_other(vpg):
    assert vpg["vpg:8:1"]["collectives"] == []


def test_environments_on_two_devices_train_the_seeds_of_one(vpg):
    assert_same_training(vpg["vpg:8:2"], vpg["vpg:1:1"])
    assert vpg["vpg:8:2"]["spread"] == ["seeds,envs"]


def test_over_environments_only_the_gradients_and_scalars_are_reduced(vpg):
    found = vpg["vpg:8:2"]["collectives"]
    assert {each["opcode"] for each in found} == {"all-reduce"}
    shapes = [
        [int(size) for size in dims.split(",")]
        for each in found
        for dims in re.findall(r"\w+\[([\d,]+)\]", each["shape"])
    ]
    assert sorted(map(math.prod, shapes)) == sorted(map(math.prod, gradient_shapes()))


def gradient_shapes():
    """Of the parameters of both networks."""
    config = purerl.vpg("CartPole-v1", total_steps=128, **SMALL)
    learner = jax.eval_shape(purerl.init, jax.random.key(0), config).learner
    return [
        leaf.shape for leaf in jax.tree.leaves((learner.policy.arrays, learner.baseline.arrays))
    ]


@pytest.mark.slow
def test_shuffled_minibatches_and_normalisers_are_the_same_with_environments_spread():
    layouts = ["ppo:1:1", "ppo:8:4", "normalized:1:1", "normalized:8:8"]
    found = on_eight_devices(*layouts)
    assert_same_training(found["ppo:8:4"], found["ppo:1:1"])
    assert_same_training(found["normalized:8:8"], found["normalized:1:1"])
    for layout in ("ppo:8:4", "normalized:8:8"):
        # Of the rows themselves nothing is gathered; of their numbers, by the compiler's choice.
        others = [each for each in found[layout]["collectives"] if each["opcode"] != "all-reduce"]
        assert {each["opcode"] for each in others} <= {"all-gather"}
        assert all(each["shape"].startswith("s32") for each in others)


def test_rows_go_back_to_where_they_came_from_and_keep_their_numbers():
    x = jnp.arange(6.0).reshape(3, 2)
    assert_bitwise_equal(unflatten_rows(flatten_rows(x), (3, 2)), x)
    mesh = make_mesh(jax.devices()[:2], envs=2)

    def both(x):
        layout = layout_of(mesh)
        rows = flatten_rows(x, layout)
        numbers = row_numbers(jnp.arange(6), x.shape, layout)
        return rows, unflatten_rows(rows, x.shape, layout), rows[numbers]

    with jax.set_mesh(mesh):
        rows, back, numbered = jax.jit(both)(x)
    np.testing.assert_array_equal(rows, [0, 2, 4, 1, 3, 5])
    np.testing.assert_array_equal(back, x)
    np.testing.assert_array_equal(numbered, np.arange(6.0))


def test_what_is_mapped_is_told_over_how_many_devices_seeds_lie():
    def devices(x, layout):
        return x + layout.seeds

    seeds = jnp.zeros(4)
    for mesh, expected in ((make_mesh(jax.devices()), 2), (make_mesh(jax.devices()[:1]), 1)):
        found = map_seeds(devices, seeds, mesh=mesh, with_layout=True)
        np.testing.assert_array_equal(found, expected)


def test_environments_that_the_devices_do_not_divide_are_refused_before_anything(tmp_path):
    config = purerl.vpg("CartPole-v1", total_steps=80, **(SMALL | {"num_envs": 5}))
    mesh = make_mesh(jax.devices()[:2], envs=2)
    says = r"num_envs = 5 is not divisible by the 2 devices .*'envs'; use 4 or 6"
    with pytest.raises(ValueError, match=says) as refusal:
        purerl.run(config, 2, tmp_path / "run", mesh=mesh)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=says):
        purerl.train_seeds(purerl.seed_keys(0, 2), config, mesh=mesh)


def test_a_mesh_of_other_axes_is_refused():
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    with pytest.raises(ValueError, match=r"mesh has the axes \('batch',\); it takes 'seeds'"):
        require_mesh(mesh, 8)


@pytest.mark.parametrize("mesh", [8, "4x2", {"seeds": 2}])
def test_what_is_no_mesh_is_refused_in_one_line(mesh, tmp_path, without_type_checks):
    config: Any = purerl.vpg("CartPole-v1", total_steps=64, **SMALL)
    with pytest.raises(ValueError, match=r"mesh = .* must be a jax.sharding.Mesh") as refusal:
        purerl.run(config, 2, tmp_path / "run", mesh=mesh)
    assert "\n" not in str(refusal.value)


def test_explicit_axes_become_automatic_ones():
    mesh = Mesh(np.array(jax.devices()), ("seeds",), axis_types=(AxisType.Explicit,))
    assert require_mesh(mesh, 8).axis_types == (AxisType.Auto,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0", "cannot be read; write 8, or 4x2"),
        ("2x", "cannot be read"),
        ("two", "cannot be read"),
        ("3", r"'3' needs 3 devices, and there are 2; .*JAX_NUM_CPU_DEVICES=3"),
        ("2x2", "needs 4 devices, and there are 2"),
    ],
)
def test_devices_that_cannot_be_are_refused_in_one_line(text, says):
    with pytest.raises(ValueError, match=says) as refusal:
        parse_mesh(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "shape"), [("1", {"seeds": 1}), ("2", {"seeds": 2}), ("1x2", {"seeds": 1, "envs": 2})]
)
def test_a_header_tells_the_devices_of_a_run(text, shape):
    mesh = parse_mesh(text)
    assert mesh_to_dict(mesh) == shape
    assert mesh_from_dict(shape) == mesh
    assert mesh_to_dict(None) is mesh_from_dict(None) is None


@pytest.mark.slow
def test_a_run_on_a_mesh_goes_on_on_it_and_says_where_another_differs(tmp_path):
    config = purerl.vpg("CartPole-v1", total_steps=8 * 64, **SMALL)
    how: Any = {"evaluation_episodes": 0, "progress": False}
    straight = purerl.run(config, 2, tmp_path / "a", mesh=parse_mesh("1x2"), **how)
    assert all(np.isfinite(straight.metrics.policy_loss).reshape(-1))
    one = purerl.run(config, 2, tmp_path / "b", mesh=parse_mesh("1"), **how)
    np.testing.assert_allclose(
        straight.metrics.policy_loss[:, 0], one.metrics.policy_loss[:, 0], rtol=1e-3, atol=1e-5
    )
    longer: Any = {"total_steps": 16 * 64, "progress": False}
    with pytest.raises(ValueError, match=r"mesh: \{'seeds': 1, 'envs': 2\}, now \{'seeds': 2\}"):
        purerl.resume(tmp_path / "a", mesh=parse_mesh("2"), **longer)
    assert purerl.resume(tmp_path / "a", **longer).resumed_at == 8
