"""Plans for machines that are not here: targets, memory, padding, and what is said of them."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ROOT, has_compilers
from probes import Probe
from small import SIZES

import purerl
from purerl.cli.main import main
from purerl.cli.tables import plan_rows
from purerl.compute.mapping import pad_seeds
from purerl.compute.mesh import seed_mesh
from purerl.experiment import programs
from purerl.experiment.hosts import asking
from purerl.experiment.hosts.memory import program_bytes
from purerl.experiment.hosts.stopping import RunError
from purerl.planning import compiling, plans, targets
from purerl.planning.flops import count_flops
from purerl.seeds import seed_keys

SMALL: Any = {"num_envs": 4, "rollout_length": 8, "hidden": (8,)}
CHUNK = 4


def config(**settings: Any):
    return purerl.vpg(Probe("match", limit=True, length=0), **(SIZES | settings))


def planned(num_seeds, mesh=None):
    return compiling.PlannedRun(config(), num_seeds, mesh or seed_mesh(), CHUNK)


needs_compilers = pytest.mark.skipif(
    not has_compilers(),
    reason="needs the compilers of the extra `plan`: pip install '.[plan]'",
)


@pytest.mark.parametrize(
    ("name", "devices", "topology"),
    [
        ("h200", 1, "1x1x1"),
        ("h100:8", 8, "1x1x8"),
        ("v5e:16x16", 256, "16x16"),
        ("v4:2x2x4", 16, "2x2x4"),
    ],
)
def test_a_target_is_a_chip_and_how_many(name, devices, topology):
    target = targets.parse_target(name)
    assert (target.num_devices, target.topology) == (devices, topology)


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("h20", "did you mean h200"),
        ("a100", "or a100-80g"),
        ("v5e", "did you mean v5e:"),
        ("v5e:2*4", "did you mean v5e:2x4"),
        ("h100:0", "did you mean h100"),
        ("abacus", "Targets are h200, h100, a100-80g"),
    ],
)
def test_an_unknown_target_is_refused_with_the_nearest(name, guess):
    with pytest.raises(ValueError, match=guess) as refused:
        purerl.plan("CartPole-v1", target=name, seeds=8)
    assert "v5e:16x16" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "package"), [("v5e:2x4", "libtpu"), ("l4", "jax-cuda13-plugin, jax-cuda13-pjrt")]
)
def test_without_its_compiler_a_line_says_what_to_install(target, package, monkeypatch, capsys):
    def version(name):
        return None if name.startswith(("libtpu", "jax-cuda", "nvidia")) else "1.2.3"

    monkeypatch.setattr(targets, "_version", version)
    monkeypatch.setattr("purerl.experiment.hosts.startup.use_all_cores", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--target", target])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"needs {package}" in line
    assert "install purerl[plan] for this" in line


def test_a_compiler_for_another_jax_is_refused(monkeypatch):
    monkeypatch.setattr(targets, "_version", lambda name: "1" if name == "jaxlib" else "2")
    with pytest.raises(ValueError, match="plugin 2 does not go with jaxlib 1"):
        targets.require_compiler(targets.parse_target("h100"))


@pytest.mark.slow
def test_memory_is_what_a_run_of_the_same_program_needs():
    found = compiling.read_compiled(planned(4))
    run = programs.compile_programs(
        seed_keys(0, 4), config(), None, chunk_updates=CHUNK, episodes=compiling.EPISODES
    )
    assert found.memory == run.memory >= program_bytes(run.chunk)
    assert found.temporaries == run.chunk.memory_analysis().temp_size_in_bytes
    assert found.launches is not None
    assert found.launches > 8  # at the least one for each step of the rollout


def test_what_begins_a_run_and_plays_is_compiled_only_where_its_memory_is_not_known(monkeypatch):
    def refuse(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiling.PlannedRun, "other_programs_bytes", refuse)
    chunk = compiling.read_compiled(planned(4), other_programs_bytes=0).memory
    assert compiling.read_compiled(planned(4), other_programs_bytes=2 * chunk).memory == 2 * chunk


def test_seeds_are_padded_as_in_a_run():
    mesh = seed_mesh()
    seeds = pad_seeds(np.arange(mesh.size + 1), mesh.size)
    assert planned(mesh.size + 1, mesh).padded_seeds == len(seeds) == 2 * mesh.size
    found = compiling.read_compiled(planned(mesh.size + 1, mesh))
    assert found == compiling.read_compiled(planned(2 * mesh.size, mesh))
    assert (found.num_devices, found.padded_seeds) == (mesh.size, 2 * mesh.size)


def test_no_device_waits_for_another():
    mesh = seed_mesh()
    assert mesh.size > 1
    assert compiling.read_compiled(planned(2 * mesh.size, mesh)).collectives == {}


@pytest.mark.slow
def test_environments_over_devices_are_laid_out_and_reduced():
    devices = jax.devices()
    mesh = compiling.mesh_on(devices, 3, "1x2")
    found = compiling.read_compiled(planned(3, mesh))
    assert (found.num_devices, found.devices_per_agent, found.padded_seeds) == (2, 2, 3)
    assert set(found.collectives or ()) == {"all-reduce"}
    assert compiling.mesh_on(devices, 1, None).size == 1  # as in a run
    assert compiling.mesh_on(devices, 3, None).size == 2
    with pytest.raises(ValueError, match="'2x2' needs 4 devices, and the target has 2; use fewer"):
        compiling.mesh_on(devices, 3, "2x2")


def test_operations_are_counted_by_what_is_asked_for():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert count_flops(jnp.matmul, a, b) == 2 * 3 * 5 * 7
    assert count_flops(jax.vmap(jnp.matmul), a[None], b[None]) == 2 * 3 * 5 * 7
    assert (
        count_flops(lambda x: jax.lax.scan(lambda x, _: (jnp.sin(x), x), x, length=9), a) == 9 * 15
    )
    assert count_flops(lambda x: x.T.reshape(-1)[:4], a) == 0
    assert count_flops(jnp.sum, a) == 15
    assert count_flops(lambda n: n + 1, jnp.int32(1)) == 0


def test_operations_of_an_update_grow_with_the_rollout():
    once = compiling.update_flops(config())
    longer = config(rollout_length=16)
    assert 1.8 < compiling.update_flops(longer) / once < 2.0


@pytest.mark.parametrize(("devices", "per_agent"), [(1, 1), (8, 1), (8, 2)])
@pytest.mark.parametrize("asked", [1, 50, 90, 400])
def test_the_number_of_seeds_that_fill_the_memory(devices, per_agent, asked):
    groups = devices // per_agent

    def with_seeds(count):
        memory = 100 + 10 * (count // groups)
        return compiling.Findings(devices, per_agent, count, 1, memory, 0, 0, {}, 1.0, 1.0, 1.0)

    assert compiling.max_seeds(with_seeds(asked * groups), with_seeds, 1100) == 100 * groups


@pytest.mark.parametrize(
    ("message", "memory"),
    [
        ("the total memory required (104.5G) exceeds available HBM (15.75G).", 104.5 * 2**30),
        ("Ran out of memory: Used 512.0M of 15.75G hbm. Exceeded", 2**29),
        ("INTERNAL: something else", None),
    ],
)
def test_what_does_not_fit_says_how_much_it_needs(message, memory):
    assert compiling._bytes_in_message(message) == memory


def compiled_plan(**changes: Any) -> compiling.CompiledPlan:
    found = compiling.Findings(8, 1, 16, 2, 10**9, 10**8, 10**8, {}, 1e12, 1e9, 1000.0)
    return compiling.CompiledPlan(dataclasses.replace(found, **changes), 1.0, 80, 32)


@pytest.mark.parametrize(
    ("changes", "fits", "seconds", "bound_by"),
    [
        ({}, True, 1e12 / 197e12, "arithmetic"),
        ({"bytes": 8.19e9}, True, 1e-2, "memory"),
        ({"memory": 10**11, "bytes": None, "collectives": None}, False, 1e12 / 197e12, "arithm"),
    ],
)
def test_a_plan_says_whether_it_fits_and_what_bounds_it(
    changes, fits, seconds, bound_by, monkeypatch
):
    monkeypatch.setattr(plans, "require_compiler", lambda target: {"jax": "1"})
    monkeypatch.setattr(plans, "_compile_in_subprocess", lambda request: compiled_plan(**changes))
    made = purerl.plan("CartPole-v1", target="v5e:2x4", seeds=10)
    assert (made.seeds, made.seeds_per_device, made.num_devices) == (10, 2, 8)
    assert made.fits is fits
    assert made.seconds == pytest.approx(seconds)
    assert made.bound_by.startswith(bound_by)
    assert made.steps_per_second == pytest.approx(32 * 10 / seconds)
    shown = dict(plan_rows(made))
    assert shown["fits"] == ("yes" if fits else "no; in batches: --seed-batch 80")
    assert shown.get("collectives in the program") == (None if not fits else "none")


def test_settings_that_a_run_refuses_are_refused(monkeypatch):
    monkeypatch.setattr(plans, "require_compiler", lambda target: {})
    with pytest.raises(ValueError, match="did you mean CartPole-v1"):
        purerl.plan("CartPol-v1", target="v5e:2x4", seeds=10)


@pytest.mark.parametrize("name", ["policy", "env_params"])
def test_settings_that_cannot_be_sent_are_refused(name, monkeypatch):
    monkeypatch.setattr(plans, "require_compiler", lambda target: {})
    setting = {"policy": lambda *args: None, "env_params": purerl.make_env("CartPole-v1")[1]}[name]
    with pytest.raises(ValueError, match="cannot be given to another process"):
        purerl.plan("CartPole-v1", target="v5e:2x4", seeds=10, **{name: setting})


def test_a_compiler_that_fails_is_no_plan(monkeypatch):
    monkeypatch.setattr(asking.sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="compiling for h100 failed: exit code 1"):
        plans._compile_in_subprocess(
            compiling.PlanRequest("h100", "CartPole-v1", "vpg", 1, None, {}, 10**9, ".")
        )


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize("target", ["v5e:2x4", "h100:8"])
def test_a_plan_of_ten_seeds_on_eight_devices(target, tmp_path):
    agent = ["--num-envs", "4", "--rollout-length", "16"]
    asked = ["--target", target, "--seeds", "10", "--json", "plan.json"]
    done = subprocess.run(
        [sys.executable, "-m", "purerl", "plan", *asked, *agent],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert "at most" in done.stdout
    made = json.loads((tmp_path / "plan.json").read_text())
    assert (made["num_devices"], made["seeds_per_device"]) == (8, 2)
    assert made["fits"]
    assert made["collectives"] == {}
    assert made["max_seeds"] > 10


@pytest.mark.slow
@needs_compilers
def test_no_compiler_is_loaded_into_the_process_that_plans():
    made = purerl.plan("CartPole-v1", target="v5e:2x2", seeds=4, **SMALL)
    assert made.memory > 0
    assert "libtpu" not in Path("/proc/self/maps").read_text()


@pytest.mark.slow
@needs_compilers
def test_a_topology_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="is no topology of libtpu"):
        purerl.plan("CartPole-v1", target="v5e:3x5", seeds=4, **SMALL)


def is_of(name, versions):
    """Whether figures kept under a name, such as "jax 0.11.2, libtpu 0.0.52", are of these."""
    return all(versions[each] == number for each, number in map(str.split, name.split(", ")))


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize("target", ["h200", "v5e:2x2"])
@pytest.mark.parametrize("program", ["vpg", "ppo"])
def test_what_is_compiled_for_accelerators_has_not_grown(target, program):
    kept = json.loads((ROOT / "benchmarks/results/compiled.json").read_text())
    versions = targets.require_compiler(targets.parse_target(target))
    found = [name for name in kept[target][program] if is_of(name, versions)]
    if not found:
        pytest.skip(f"no figures of {versions} are kept: benchmarks/compiled.py --write")
    asked = ["--targets", target, "--programs", program]
    done = subprocess.run(
        [sys.executable, "benchmarks/compiled.py", "--check", *asked],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
