"""A squashed action is stored before the squash; the environment and the user get it squashed."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import purerl
from purerl.experiment.play.rendering import record_episode
from purerl.networks.network import TrainedPolicy
from purerl.rollout import collect
from purerl.training import attempt_step
from purerl.types import Estimate
from purerl.update import make_batch, policy_objective

SIZES: Any = {"num_envs": 8, "rollout_length": 16, "hidden": (8,)}
LOW, HIGH, STEPS = -3.0, 5.0, 4
# The centre of the policy: where tanh bends, and where it rounds to a bound.
LOCS = [0.5, -12.0]


@dataclasses.dataclass(frozen=True)
class Paying:
    """Pays the action that it gets, and shows it; episodes have four steps."""

    def observation_space(self, params):
        return purerl.Box(-9.0, 9.0, (1,))

    def action_space(self, params):
        return purerl.Box(LOW, HIGH, (1,))

    def reset(self, key, params):
        return jnp.zeros(1), jnp.int32(0)

    def step(self, key, state, action, params):
        obs, state, reward, terminated, truncated, info = self.step_env(key, state, action, params)
        state = jnp.where(terminated, 0, state)
        return jnp.where(terminated, 0.0, obs), state, reward, terminated, truncated, info

    def step_env(self, key, state, action, params):
        """One step without a reset, as films take it."""
        info = {"final_observation": action}
        return action, state + 1, action[0], state + 1 >= STEPS, jnp.array(False), info


PAYING = Paying()


def squashing(algorithm=purerl.ppo, env=PAYING):
    return algorithm(env, squash=True, total_steps=128, **SIZES)


def last_bias(policy):
    return policy.arrays.network.mlp.layers[-1].bias


def last_weight(policy):
    return policy.arrays.network.mlp.layers[-1].weight


def starting_at(loc, config):
    """A state whose policy has this centre, whatever it sees."""
    state = jax.jit(purerl.init)(jax.random.key(0), config)
    policy = eqx.tree_at(last_bias, state.learner.policy, jnp.full(1, loc))
    policy = eqx.tree_at(last_weight, policy, replace_fn=jnp.zeros_like)
    return eqx.tree_at(lambda state: state.learner.policy, state, policy)


def sent(before_squash):
    """What the environment gets of an action, in float64."""
    return (LOW + HIGH) / 2 + (HIGH - LOW) / 2 * np.tanh(np.asarray(before_squash, float))


@pytest.mark.parametrize("loc", LOCS)
def test_a_rollout_keeps_the_action_before_the_squash_and_the_environment_gets_it_squashed(loc):
    config = squashing()
    state = starting_at(loc, config)
    rollout = jax.jit(collect)(jax.random.key(1), state.learner.policy, state.envs, config)[1]
    action = np.asarray(rollout.action)[..., 0].astype(float)
    np.testing.assert_allclose(rollout.reward, sent(action), rtol=1e-5, atol=1e-6)
    assert abs(action.mean() - loc) < 0.4  # four standard errors
    # Not 1 − tanh², which is 0 even in float64 where u is large.
    density = stats.norm.logpdf(action, loc, 1) + 2 * (np.logaddexp(action, -action) - np.log(2))
    np.testing.assert_allclose(rollout.log_prob, density, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loc", LOCS)
def test_a_user_gets_the_action_squashed(loc, tmp_path):
    config = squashing()
    policy = starting_at(loc, config).learner.policy
    box, obs = config.env.action_space(None), jnp.ones(1)
    purerl.save_policy(tmp_path / "policy.npz", policy, config)
    for trained in (TrainedPolicy(policy, box), purerl.load_policy(tmp_path / "policy.npz")):
        np.testing.assert_allclose(trained.act(obs), [sent(loc)], rtol=1e-5, atol=1e-6)
        key = jax.random.key(3)
        expected = sent(trained(obs).sample(key))
        np.testing.assert_allclose(trained.act(obs, key), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loc", LOCS)
def test_evaluations_and_films_play_the_action_squashed(loc):
    config = squashing()
    policy = starting_at(loc, config).learner.policy
    sizes: Any = {"num_episodes": 2, "max_steps": STEPS}
    greedy = purerl.evaluate(jax.random.key(1), policy, config, **sizes)
    np.testing.assert_allclose(greedy.episode_return, STEPS * sent([loc, loc]), rtol=1e-5)
    sampled = purerl.evaluate(jax.random.key(1), policy, config, greedy=False, **sizes)
    assert (sampled.episode_return >= STEPS * LOW).all()
    frames = record_episode(jax.random.key(1), policy, config, max_steps=STEPS)
    np.testing.assert_allclose(frames.obs[1:, 0], sent([loc] * STEPS), rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Noting(Paying):
    """Its state before the reset is the action that it got, as films show it."""

    def reset(self, key, params):
        return jnp.zeros(1), jnp.float32(0)

    def step(self, key, state, action, params):
        obs, state = self.reset(key, params)
        always, never = jnp.array(True), jnp.array(False)
        return obs, state, action[0], always, never, {"final_observation": action}

    def step_env(self, key, state, action, params):
        return action, action[0], *self.step(key, state, action, params)[2:]


def test_the_last_state_of_a_film_is_that_after_the_action_squashed():
    config = squashing(env=Noting())
    policy = starting_at(0.5, config).learner.policy
    frames = record_episode(jax.random.key(1), policy, config, max_steps=1)
    np.testing.assert_allclose(frames.states[-1], sent(0.5), rtol=1e-5)


@pytest.mark.parametrize("loc", LOCS)
@pytest.mark.parametrize("algorithm", [purerl.vpg, purerl.ppo])
def test_the_gradient_of_a_loss_is_that_of_the_gaussian_before_the_squash(algorithm, loc):
    config = squashing(algorithm)
    state = starting_at(loc, config)
    policy = state.learner.policy

    def batch_and_gradient():
        rollout = collect(jax.random.key(1), policy, state.envs, config)[1]
        # Advantages that are known: 1 above the centre and −1 below.
        advantage = jnp.sign(rollout.action[..., 0] - loc)
        estimate = Estimate(advantage, advantage, jnp.ones_like(advantage))
        batch = make_batch(rollout, None, estimate)

        def loss(bias):
            changed = eqx.tree_at(last_bias, policy, bias)
            return jnp.mean(policy_objective(changed, batch, config)[0])

        return batch.action[:, 0], jax.grad(loss)(jnp.full(1, loc))

    action, gradient = map(np.asarray, jax.jit(batch_and_gradient)())
    # −Σ Â ∇ log π, and ∇ log π = (u − loc) / scale².
    np.testing.assert_allclose(gradient, [-abs(action.astype(float) - loc).mean()], rtol=1e-4)


# Own distributions


class Own(eqx.Module):
    """A distribution with a squash of its own."""

    gaussian: purerl.DiagonalGaussian
    times: int = eqx.field(static=True)

    def __getattr__(self, name):
        if name in ("sample", "log_prob", "entropy", "mode"):
            return getattr(self.gaussian, name)
        raise AttributeError(name)

    def squash(self, action):
        return jnp.tile(jnp.sin(action), self.times)


class OwnPolicy(eqx.Module):
    loc: jax.Array
    times: int = eqx.field(static=True)

    def __call__(self, obs):
        return Own(purerl.DiagonalGaussian(self.loc, jnp.ones(1)), self.times)


def once(key, obs_space, action_space):
    return OwnPolicy(jnp.full(1, 0.5), 1)


def twice(key, obs_space, action_space):
    return OwnPolicy(jnp.full(1, 0.5), 2)


def test_the_squash_of_an_own_distribution_is_used():
    config = purerl.ppo(Paying(), policy=once, num_envs=4, rollout_length=8, total_steps=32)
    rollout = jax.jit(attempt_step)(jax.jit(purerl.init)(jax.random.key(0), config), config)[1]
    expected = 1 + 4 * np.sin(np.asarray(rollout.action)[..., 0])
    np.testing.assert_allclose(rollout.reward, expected, rtol=1e-5, atol=1e-5)


def test_a_squash_that_does_not_fit_the_environment_is_refused():
    with pytest.raises(ValueError, match=r"policy= .* its action is float32\[2\], but .*\[1\]"):
        purerl.ppo(Paying(), policy=twice)
