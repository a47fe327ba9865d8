"""Pictures of an episode."""

import dataclasses
import os
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from finished import train
from PIL import Image
from probes import Probe

import purerl
from purerl.experiment.play import gif
from purerl.experiment.play.gif import write_gif
from purerl.experiment.play.rendering import record_episode, render_run
from purerl.experiment.store.identity import Identity


class Always:
    """A policy that takes one action."""

    def __init__(self, action):
        self.action = action

    def __call__(self, obs):
        return self

    def mode(self):
        return jnp.asarray(self.action)


def test_frames_go_from_the_first_state_to_the_last_with_the_return_before_each():
    config = purerl.vpg(Probe("constant", length=3, clock=True), num_envs=1, rollout_length=4)
    frames = record_episode(jax.random.key(0), Always(1), config, max_steps=10)
    np.testing.assert_array_equal(frames.obs[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(frames.episode_return, [0, 1, 2, 3])
    assert len(frames.states) == 4


def test_the_last_frame_of_gymnax_is_from_before_the_reset():
    config = purerl.vpg("CartPole-v1", num_envs=1, rollout_length=4)
    frames = record_episode(jax.random.key(0), Always(1), config, max_steps=100)
    angles = np.abs([state.theta for state in frames.states])
    limit = 12 * 2 * np.pi / 360
    assert angles[-1] > limit
    assert np.all(angles[:-1] <= limit)
    np.testing.assert_allclose(frames.obs[:, 2], [state.theta for state in frames.states])
    cut = record_episode(jax.random.key(0), Always(1), config, max_steps=3)
    np.testing.assert_array_equal(cut.obs, frames.obs[:4])


@dataclasses.dataclass(frozen=True)
class Keyed:
    """A probe with a typed key in its state."""

    probe: Probe

    def __getattr__(self, name):
        return getattr(self.probe, name)

    def reset(self, key, params):
        obs, state = self.probe.reset(key, params)
        return obs, (key, state)

    def step(self, key, state, action, params):
        obs, after, *rest = self.probe.step(key, state[1], action, params)
        return obs, (key, after), *rest


def test_a_state_with_a_key_is_recorded_too():
    env: Any = Keyed(Probe("constant", length=3, clock=True))
    config = purerl.vpg(env, num_envs=1, rollout_length=4)
    frames = record_episode(jax.random.key(0), Always(1), config, max_steps=10)
    assert len(frames.states) == 4
    assert jnp.issubdtype(frames.states[0][0].dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                *("BernoulliBandit-misc", "Catch-bsuite", "Breakout-MinAtar", "Pong-misc"),
                *("PointRobot-misc", "FourRooms-misc"),
            )
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_episode_becomes_a_gif(env, request, tmp_path, monkeypatch):
    monkeypatch.setattr(matplotlib, "use", lambda *_: pytest.fail("the backend was changed"))
    before = dict(os.environ)
    if env == "CartPole-v1":
        shutil.copytree(request.getfixturevalue("finished"), tmp_path / "run")
    else:
        train(tmp_path / "run", "ppo", env, seeds=1, evaluation_episodes=0)
    path, total, length = render_run(tmp_path / "run", 0, max_steps=8)
    assert dict(os.environ) == before
    assert path == tmp_path / "run/seed_0.gif"
    assert 0 < length <= 8
    assert np.isfinite(total)
    opened: Any = Image.open(path)
    with opened as image:
        assert image.n_frames == length + 1
        image.seek(0)
        first = np.asarray(image.convert("RGB")).astype(int)
        assert first.std() > 0
        image.seek(length)
        assert np.any(np.asarray(image.convert("RGB")) != first)


@pytest.mark.parametrize("frames", [21, 101, 119])
def test_a_long_episode_is_shown_in_few_frames_the_last_among_them(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(gif, "MAX_FRAMES", 10)
    drawn = []

    def make_artist(axes, *_):
        return drawn.append

    monkeypatch.setattr(gif, "_make_artist", make_artist)
    config = purerl.vpg(Probe("constant"), num_envs=1, rollout_length=4)
    path, identity = tmp_path / "a.gif", Identity.new()
    returns = np.arange(float(frames))
    write_gif([None] * frames, np.zeros((frames, 1)), returns, config, path, identity)
    assert identity.run.encode() in path.read_bytes()
    assert 5 < len(drawn) <= 11
    assert (drawn[0], drawn[-1]) == (0, frames - 1)
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"episode": -1}, "episode = -1 must be from 0"),
        ({"max_steps": 0}, "max_steps = 0 must be a whole number of at least 1"),
        ({"seed": 77}, "seed = 77 is not in this run"),
        ({"seed": -1}, "seed = -1 is not in this run"),
        ({"path": "film.mp4"}, "must end in .gif"),
    ],
)
def test_an_episode_that_cannot_be_is_refused_in_one_line(how, line, finished):
    with pytest.raises(ValueError, match=line) as error:
        render_run(finished, **({"seed": 0} | how))
    assert "\n" not in str(error.value)
