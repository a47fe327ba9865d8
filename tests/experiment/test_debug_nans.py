"""With `JAX_DEBUG_NANS`: what is sound trains as ever, and a NaN raises where it is made."""

import dataclasses
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe
from small import EPISODES, SEEDS, SIZES
from trees import assert_bitwise_equal

import purerl
from purerl.agents import AdvanceAgent, Agent
from purerl.compute.trees import divide, divide_on_host

HOW: Any = {"evaluation_episodes": EPISODES, "evaluate_every": 12, "progress": False}


@dataclasses.dataclass(frozen=True)
class Dividing(Probe):
    """A probe that from its step `at` on divides nothing by nothing."""

    length: int = 6
    at: int = 4

    def step(self, key, state, action, params):
        obs, after, reward, terminated, truncated, info = super().step(key, state, action, params)
        left = jnp.maximum(self.at - state.time, 0).astype(jnp.float32)
        reward = reward * (left / left)
        return obs, after, reward, terminated, truncated, info


def test_a_run_whose_metrics_are_not_all_defined_is_the_same(tmp_path):
    config = purerl.vpg(Probe(length=100), **SIZES)  # episodes are longer than most rollouts
    plain = purerl.run(config, SEEDS, tmp_path / "plain", **HOW)
    with jax.debug_nans(True):
        debugged = purerl.run(config, SEEDS, tmp_path / "debugged", **HOW)
    assert np.isnan(plain.metrics.episode_return).any()
    assert_bitwise_equal(plain.states, debugged.states)
    assert_bitwise_equal(plain.metrics, debugged.metrics)


@pytest.mark.parametrize("algo", [purerl.reinforce, purerl.ppo])
def test_a_chunk_returns_no_nan_where_a_metric_is_not_defined(algo):
    config = algo(Probe(length=100), **SIZES)
    key = jax.random.key(0)
    agent = Agent(key, jax.tree.map(lambda leaf: None, config))
    state, records = AdvanceAgent(6)(purerl.init(key, config), agent, jnp.array([0, 6]), config)
    assert not any(
        np.isnan(leaf).any()
        for leaf in jax.tree.leaves((state, records))
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    )
    on_host = divide_on_host(jax.tree.map(np.asarray, records))
    assert np.isnan(on_host.episode_return).all()
    assert_bitwise_equal(divide(records), on_host)


@pytest.mark.parametrize("seed_batch", [None, 2])
def test_an_environment_that_makes_a_nan_raises_at_that_operation(tmp_path, seed_batch):
    config = purerl.vpg(Dividing(), **SIZES)
    with jax.debug_nans(True), pytest.raises(FloatingPointError) as error:
        purerl.run(config, SEEDS, tmp_path, seed_batch=seed_batch, **HOW)
    lines = [frame.line for frame in traceback.extract_tb(error.value.__traceback__)]
    assert "reward = reward * (left / left)" in lines


def test_without_it_such_an_agent_fails(tmp_path):
    with pytest.raises(purerl.AllAgentsFailed, match="reward at step 4"):
        purerl.run(purerl.vpg(Dividing(), **SIZES), SEEDS, tmp_path, **HOW)


def test_a_sweep_raises_there_too(tmp_path):
    settings = purerl.sweep(purerl.vpg(Dividing(), **SIZES), discount=[0.9, 0.99])
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        purerl.run_sweep(settings, SEEDS, tmp_path, evaluation_episodes=0, progress=False)
