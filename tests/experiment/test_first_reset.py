"""First observations that no agent can learn from are refused before a run begins."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe
from small import SIZES

import purerl

HOW: Any = {"updates_per_chunk": 6, "evaluation_episodes": 0, "progress": False}


class Begins(NamedTuple):
    """With which observation `Beginning` begins where a draw is above `threshold`."""

    obs: float = 1.0
    threshold: float = -1.0


@dataclasses.dataclass(frozen=True)
class Beginning(Probe):
    """Its first observation is what the parameters say; `discrete` declares 0, 1 and 2."""

    discrete: bool = False

    @property
    def default_params(self):
        return Begins()

    def observation_space(self, params):
        return purerl.Discrete(3) if self.discrete else purerl.Box(-1.0, 1.0, (1,))

    def reset(self, key, params):
        obs, state = super().reset(key, params)
        strange = jnp.where(jax.random.uniform(key) > params.threshold, params.obs, 1.0)
        return (strange if self.discrete else strange[None]), state._replace(obs=obs)

    def step(self, key, state, action, params):
        time = state.time + 1
        obs = jnp.float32(1) if self.discrete else jnp.ones(1)
        info = {"final_observation": obs}
        state = state._replace(time=time)
        return obs, state, jnp.float32(1), time % 4 == 0, jnp.array(False), info


def beginning(discrete=False, policy=None, **params):
    settings: Any = {**SIZES, "total_steps": 4 * 8 * 6}
    if policy is not None:
        settings |= {"policy": policy}
        settings.pop("hidden")
    factory = purerl.vpg if policy is None else purerl.reinforce
    return factory(Beginning(discrete=discrete), env_params=Begins(**params), **settings)


def refused(config, directory, seeds: Any = 4, **options):
    with pytest.raises(ValueError, match=r"^Beginning.reset: ") as error:
        purerl.run(config, seeds, directory, **(HOW | options))
    assert "\n" not in str(error.value)
    assert [path.name for path in directory.iterdir()] == [".lock"]
    return str(error.value)


def test_a_first_observation_that_is_nan_is_refused(tmp_path):
    line = refused(beginning(obs=np.nan), tmp_path)
    assert "the first observation of seed 0 is nan; " in line


@pytest.mark.parametrize("obs", [3.0, -1.0, 0.5])
def test_a_first_observation_outside_of_a_discrete_space_is_refused(obs, tmp_path):
    line = refused(beginning(discrete=True, obs=obs), tmp_path)
    assert f"of seed 0 is {obs:g}, which is not one of the integers 0 to 2 of Discrete(3)" in line


@pytest.mark.slow
def test_it_is_named_by_its_seed_in_whichever_batch(tmp_path):
    config = beginning(discrete=True, obs=7.0, threshold=0.97)
    states = [purerl.init(key, config) for key in purerl.seed_keys(0, 40)]
    bad = [seed for seed, state in enumerate(states) if np.any(np.asarray(state.envs.obs) == 7)]
    sound = [seed for seed in range(40) if seed not in bad]
    line = refused(config, tmp_path, seeds=[*sound[:5], bad[0]], seed_batch=3)
    assert f"the first observation of seed {bad[0]} is 7" in line
    assert purerl.run(config, sound[:6], tmp_path, seed_batch=3, **HOW).failed_seeds == ()


def test_an_infinite_first_observation_is_refused_where_an_agent_would_fail_by_it(tmp_path):
    line = refused(beginning(obs=np.inf), tmp_path)
    assert "of seed 0 is infinite, and fails its first update (first not finite: policy); " in line


class Clipped(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, obs):
        return purerl.Categorical(self.linear(jnp.clip(obs, -1, 1)))


def clipped(key, obs_space, action_space):
    return Clipped(eqx.nn.Linear(1, action_space.n, key=key))


@pytest.mark.slow
def test_an_infinite_first_observation_trains_where_the_policy_reads_it(tmp_path):
    config = beginning(obs=np.inf, policy=clipped)
    assert purerl.run(config, 2, tmp_path, **HOW).failed_seeds == ()


def test_a_sweep_names_the_setting_too(tmp_path):
    values: Any = {"env_params.obs": [1.0, np.nan]}
    sweep = purerl.sweep(beginning(), **values)
    with pytest.raises(ValueError, match=r"first observation of setting 1 seed 5 is nan; "):
        purerl.run_sweep(sweep, [5, 6], tmp_path, **HOW)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
