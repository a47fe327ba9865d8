"""Policies that leave a run: a file without pickle, and another program that plays them."""

import functools
import shutil
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finished import SMALL
from probes import Probe
from small import EPISODES, SEEDS, SIZES
from trees import assert_bitwise_equal

import purerl
from purerl.experiment.play import policies
from purerl.experiment.store.directory import Lock
from purerl.networks.normalization import initial_stats, update_stats


class Line(eqx.Module):
    weight: jax.Array

    def __call__(self, obs):
        return purerl.Categorical(obs @ self.weight)


def line(key, obs_space, action_space):
    return Line(jax.random.normal(key, (obs_space.shape[0], action_space.n)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains the seeds 4 and 9 with some settings, once; tests leave the run as it is."""
    sizes: Any = {"num_envs": 4, "rollout_length": 8, "total_steps": 4 * 8 * 4}

    @functools.cache
    def train(env, **settings: Any):
        config = purerl.ppo(env, **(sizes | settings))
        directory = tmp_path_factory.mktemp("trained")
        return purerl.run(config, [4, 9], directory, evaluation_episodes=0, progress=False)

    return train


NORMALIZED: Any = {"normalize_obs": True, "hidden": (16, 8)}


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("CartPole-v1", NORMALIZED),
        ("Pendulum-v1", {"squash": True, "std_from_obs": True}),
        pytest.param("Breakout-MinAtar", {}, marks=pytest.mark.slow),
        ("FourRooms-misc", {"hidden": ()}),
    ],
)
def test_a_policy_comes_back_as_it_was(env, settings, trained, tmp_path):
    result = trained(env, **settings)
    config = result.config
    purerl.save_policy(tmp_path / "policy.npz", result.policy(9), config)
    loaded = purerl.load_policy(tmp_path / "policy.npz")
    assert_bitwise_equal(loaded, result.policy(9))
    assert jax.tree.structure(loaded) == jax.tree.structure(result.policy(9))
    assert_bitwise_equal(purerl.load_policy(result.directory, 9), result.policy(9))
    obs = jnp.ones(config.env_spec.obs_space.shape)
    np.testing.assert_array_equal(loaded(obs).mode(), result.policy(9)(obs).mode())


def test_the_normaliser_travels_with_the_policy(trained, tmp_path):
    result = trained("CartPole-v1", **NORMALIZED)
    policy = result.policy(4)
    assert policy.network.stats is not None
    purerl.save_policy(tmp_path / "policy.npz", policy, result.config)
    loaded = purerl.load_policy(tmp_path / "policy.npz")
    obs = jnp.array([1.0, -2.0, 0.1, 3.0])
    np.testing.assert_array_equal(loaded(obs).logits, policy(obs).logits)
    plain = eqx.tree_at(lambda p: p.network.stats, loaded, None)
    assert np.any(np.asarray(plain(obs).logits) != np.asarray(loaded(obs).logits))


def test_the_normaliser_of_observations_far_from_0_travels_whole(trained, tmp_path):
    result = trained("CartPole-v1", **NORMALIZED)
    rows = 1e4 + np.random.default_rng(0).normal(size=(50, 64, 4)) + np.linspace(0, 3, 4)
    stats = initial_stats((4,))
    for batch in rows.astype(np.float32):
        stats = update_stats(stats, jnp.asarray(batch))
    policy = eqx.tree_at(lambda policy: policy.network.stats, result.policy(4), stats)
    purerl.save_policy(tmp_path / "policy.npz", policy, result.config)
    loaded = purerl.load_policy(tmp_path / "policy.npz")
    obs = rows[-1, 0].astype(np.float32)
    np.testing.assert_array_equal(loaded(obs).logits, policy(obs).logits)
    exact = (obs - rows.mean((0, 1))) / rows.std((0, 1))
    by_hand = policy.network.module(jnp.asarray(exact.astype(np.float32)))
    np.testing.assert_allclose(loaded(obs).logits, by_hand.logits, rtol=1e-3, atol=1e-6)


def test_a_network_of_ones_own_needs_the_config(trained, tmp_path):
    result = trained("CartPole-v1", policy=line, hidden=(8,))
    config = result.config
    purerl.save_policy(tmp_path / "policy.npz", result.policy(4), config)
    for path, seed in ((tmp_path / "policy.npz", None), (result.directory, 4)):
        with pytest.raises(ValueError, match="not purerl's"):
            purerl.load_policy(path, seed)
        assert_bitwise_equal(purerl.load_policy(path, seed, config), result.policy(4))
    other = purerl.ppo("CartPole-v1", hidden=(3,))
    with pytest.raises(ValueError, match="weights do not fit the network"):
        purerl.load_policy(tmp_path / "policy.npz", None, other)


def test_an_environment_of_ones_own_is_not_needed_to_load_a_file(tmp_path):
    config = purerl.vpg(Probe("match", limit=True, length=0), **SIZES)
    how: Any = {"updates_per_chunk": 4, "evaluation_episodes": EPISODES, "progress": False}
    result = purerl.run(config, SEEDS, tmp_path / "run", **how)
    purerl.save_policy(tmp_path / "policy.npz", result.policy(3), config)
    assert_bitwise_equal(purerl.load_policy(tmp_path / "policy.npz"), result.policy(3))


def test_what_is_no_policy_is_refused_in_one_line(finished, tmp_path):
    config = purerl.preset("CartPole-v1", "vpg", **SMALL)
    path = tmp_path / "policy.npz"
    with pytest.raises(ValueError, match="is not there"):
        purerl.load_policy(path)
    purerl.save_policy(path, purerl.load_policy(finished, 1), config)
    purerl.load_policy(path)
    sound = path.read_bytes()
    flipped = bytearray(sound)
    flipped[len(sound) // 2] ^= 1
    for data in (b"", sound[: len(sound) // 2], bytes(flipped), b"no policy at all"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is no policy, or damaged") as error:
            purerl.load_policy(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"seed = 5 is not in this run; use one of \(0, 1, 2, 3\)"):
        purerl.load_policy(finished, 5)
    with pytest.raises(ValueError, match="holds no run"):
        purerl.load_policy(tmp_path, 5)


def test_a_pickle_in_a_policy_file_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("executed",))

    array = np.empty(1, object)
    array[0] = Evil()
    np.savez(tmp_path / "policy.npz", header=array)
    with pytest.raises(ValueError, match="is no policy, or damaged"):
        purerl.load_policy(tmp_path / "policy.npz")


@pytest.mark.slow
def test_a_trained_policy_plays_cartpole_of_gymnasium(tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    config = purerl.preset("CartPole-v1", "vpg")
    result = purerl.run(config, [3], tmp_path, evaluation_episodes=0, progress=False)
    purerl.save_policy(tmp_path / "policy.npz", result.policy(3), config)
    policy = purerl.load_policy(tmp_path / "policy.npz")
    act = jax.jit(lambda obs: policy(obs).mode())

    def play(env, seed):
        obs, _ = env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(int(act(obs)))
            total += float(reward)
            done = terminated or truncated
        return total

    env = gymnasium.make("CartPole-v1")
    assert np.mean([play(env, seed) for seed in range(10)]) >= 475


def test_a_checkpoint_that_is_removed_while_it_is_read_gives_way_to_the_next(
    finished, tmp_path, monkeypatch
):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(run / "checkpoints/6", run / "checkpoints/7")
    restore, tried = policies.restore_states, []

    def removed_meanwhile(directory, updates, like):
        tried.append(updates)
        if updates == 7:  # one file after the other: the manifest stands yet
            (run / "checkpoints/7/states.npz").unlink()
            raise FileNotFoundError
        return restore(directory, updates, like)

    monkeypatch.setattr(policies, "restore_states", removed_meanwhile)
    with Lock(run):  # it is training
        purerl.load_policy(run, 1)
    assert tried == [7, 6]

    def broken(*_):
        raise OSError("something else")

    monkeypatch.setattr(policies, "restore_states", broken)
    with Lock(run), pytest.raises(OSError, match="something else"):
        purerl.load_policy(run, 1)
