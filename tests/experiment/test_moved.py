"""Runs whose environment or network has moved, makes functions of its own, or has odd states."""

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ROOT
from interruptions import Interrupted, interrupt_after
from probes import Probe
from small import EPISODES, SIZES
from trees import assert_bitwise_equal

import purerl
from purerl.experiment.play.run_evaluation import evaluate_run

HOW: Any = {"evaluation_episodes": EPISODES, "updates_per_chunk": 4, "checkpoint_every": 4}
HOW |= {"progress": False}


def died(config, directory, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(4, patch)
        with pytest.raises(Interrupted):
            purerl.run(config, 2, directory, **HOW)
    return directory


class WithLambda(eqx.Module):
    weight: jax.Array
    activation: Callable[..., Any]

    def __init__(self, key, size, out):
        self.weight = jax.random.normal(key, (size, out))
        self.activation = lambda x: jnp.tanh(x)

    def __call__(self, obs):
        return self.activation(obs @ self.weight)


class LambdaPolicy(eqx.Module):
    net: WithLambda

    def __call__(self, obs):
        return purerl.Categorical(self.net(obs))


def lambda_policy(key, obs_space, action_space):
    return LambdaPolicy(WithLambda(key, obs_space.shape[0], action_space.n))


class LambdaBaseline(eqx.Module):
    net: WithLambda

    def __call__(self, obs):
        return self.net(obs)[0]


def lambda_baseline(key, obs_space, action_space):
    return LambdaBaseline(WithLambda(key, obs_space.shape[0], 1))


def test_a_network_that_makes_a_lambda_goes_on_and_is_loaded(tmp_path, monkeypatch):
    sizes = {name: value for name, value in SIZES.items() if name != "hidden"}
    own: Any = {"policy": lambda_policy, "baseline": lambda_baseline}
    config = purerl.vpg("CartPole-v1", **own, **sizes)
    straight = purerl.run(config, 2, tmp_path / "straight", **HOW)
    run = died(config, tmp_path / "run", monkeypatch)
    again = purerl.resume(run, config, progress=False)
    assert again.resumed_at == 4
    assert_bitwise_equal(jax.tree.leaves(again.states), jax.tree.leaves(straight.states))
    loaded = purerl.resume(run, config, progress=False)
    assert_bitwise_equal(jax.tree.leaves(loaded.states), jax.tree.leaves(straight.states))
    assert evaluate_run(run, episodes=2, config=config).returns.shape == (2,)
    obs = np.ones(4, np.float32)
    expected = straight.policy(1)(obs).logits
    np.testing.assert_array_equal(purerl.load_policy(run, 1, config)(obs).logits, expected)
    purerl.save_policy(tmp_path / "policy.npz", again.policy(1), config, identity=again.identity)
    policy = purerl.load_policy(tmp_path / "policy.npz", None, config)
    np.testing.assert_array_equal(policy(obs).logits, expected)


def test_an_environment_that_has_moved_is_the_same(tmp_path, monkeypatch):
    """From a script into a module; and typed, where its name and the shapes decide."""
    source = (ROOT / "tests/support/probes.py").read_text()
    (tmp_path / "moved_probes.py").write_text(f'"""Moved."""\n{source}')
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("moved_probes")
    config = purerl.vpg(Probe("match", limit=True, length=0), **SIZES)
    run = died(config, tmp_path / "run", monkeypatch)
    other = tmp_path / "other_probes.py"
    other.write_text(source.replace("jnp.float32(1)", "jnp.float32(2)"))
    changed = importlib.import_module("other_probes").Probe("match", limit=True, length=0)
    with pytest.raises(ValueError, match=r"env\.type\.code: .*use force=True"):
        purerl.resume(run, env=changed, progress=False)
    again = purerl.resume(run, env=module.Probe("match", limit=True, length=0), progress=False)
    assert again.resumed_at == 4
    scope: Any = {"__name__": "__main__"}
    exec(compile(source, "<typed>", "exec"), scope)
    typed = scope["Probe"]("match", limit=True, length=0)
    with pytest.warns(UserWarning, match=r"the source of env\.type is not there to compare"):
        purerl.load_policy(run, 1, dataclasses.replace(config, env=typed))


NARROW = ("int8", "uint8", "bool", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


@dataclasses.dataclass(frozen=True)
class Odd:
    """A probe whose state has narrow dtypes, arrays without entries and keys of any name."""

    probe: Probe
    dtypes: tuple[str, ...] = NARROW

    default_params = Probe().default_params

    def observation_space(self, params):
        return self.probe.observation_space(params)

    def action_space(self, params):
        return self.probe.action_space(params)

    def odd(self, time):
        cast = {name: time.astype(name)[None].repeat(3) for name in self.dtypes}
        names = {"": time, "a.b": time + 1, "a": {"b": time + 2}, "µ/\n'": time + 3, "[0]": time}
        return cast, names, jnp.zeros((0, 3), jnp.int8), jax.random.key(0, impl="rbg")

    def reset(self, key, params):
        obs, state = self.probe.reset(key, params)
        return obs, (state, self.odd(state.time))

    def step(self, key, state, action, params):
        obs, inner, reward, *flags, info = self.probe.step(key, state[0], action, params)
        return obs, (inner, self.odd(inner.time)), reward, flags[0], flags[1], info


def test_states_of_any_dtype_shape_and_name_go_on_bitwise(tmp_path, monkeypatch):
    config = purerl.vpg(Odd(Probe("match", limit=True, length=0)), **SIZES)
    straight = purerl.run(config, 2, tmp_path / "straight", **HOW)
    run = died(config, tmp_path / "run", monkeypatch)
    again = purerl.resume(run, config, progress=False)
    assert again.resumed_at == 4
    assert_bitwise_equal(again.states, straight.states)
    narrow = again.states.envs.state[1][0]
    assert {name: str(leaf.dtype) for name, leaf in narrow.items()} == {n: n for n in NARROW}


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int2", "float4_e2m1fn"])
def test_states_of_less_than_a_byte_are_refused_before_training(dtype, tmp_path):
    env = Odd(Probe("match", limit=True, length=0), (dtype,))
    line = rf"the state's envs\.state\[1\]\[0\]\['{dtype}'\] is {dtype}, of which jax hands none"
    with pytest.raises(ValueError, match=line):
        purerl.run(purerl.vpg(env, **SIZES), 2, tmp_path, **HOW)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_host_half_is_imported_where_there_is_no_fcntl():
    """As on Windows, whose `os` has no such flags either."""
    code = """
import os, sys
import jax, gymnax  # what they need of a system is theirs
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
    delattr(os, name)
for name in [name for name in sys.modules if name.partition(".")[0] == "filelock"]:
    del sys.modules[name]
sys.modules["fcntl"] = None
import purerl.cli.commands, purerl.experiment.resuming, purerl.experiment.store.directory
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
