"""The policy gradient of every algorithm against the exact one, of an MDP with three states."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purerl
from purerl.fit import mean_gradient
from purerl.networks.network import as_network, parameters
from purerl.rollout import collect, reset_envs
from purerl.update import make_batch, policy_objective, rollout_values

STATES, ACTIONS, DISCOUNT = 3, 2, 0.9
# Of each state and action: the reward, the chance to terminate, and where to if it does not.
# Action 1 ends an episode soon, and pays; action 0 goes on, to what pays more or costs later.
REWARD = np.array([[0.5, 1.0], [-0.5, 0.8], [2.0, 0.0]])
ENDS = np.array([[0.02, 0.85], [0.05, 0.6], [0.1, 0.4]])
MOVES = np.array(
    [
        [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]],
        [[0.3, 0.1, 0.6], [0.2, 0.7, 0.1]],
        [[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]],
    ]
)
LOGITS = np.array([[0.3, -0.2], [-0.4, 0.1], [0.2, 0.5]])
POLICY = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
LIMIT = 5


class Params(NamedTuple):
    max_steps_in_episode: int = LIMIT


class MDPState(NamedTuple):
    place: jax.Array
    time: jax.Array


@dataclasses.dataclass(frozen=True)
class MDP:
    """Begins in state 0; observations are one-hot."""

    default_params = Params()

    def observation_space(self, params):
        return purerl.Box(0.0, 1.0, (STATES,))

    def action_space(self, params):
        return purerl.Discrete(ACTIONS)

    def observe(self, place):
        return jax.nn.one_hot(place, STATES)

    def reset(self, key, params):
        return self.observe(jnp.int32(0)), MDPState(jnp.int32(0), jnp.int32(0))

    def step(self, key, state, action, params):
        end_key, move_key = jax.random.split(key)
        here = (state.place, action)
        terminated = jax.random.uniform(end_key) < jnp.asarray(ENDS, jnp.float32)[here]
        chances = jnp.cumsum(jnp.asarray(MOVES, jnp.float32)[here])
        place = jnp.sum(jax.random.uniform(move_key) > chances[:-1]).astype(jnp.int32)
        truncated = state.time + 1 >= params.max_steps_in_episode
        done = terminated | truncated
        after = MDPState(jnp.where(done, 0, place), jnp.where(done, 0, state.time + 1))
        reward = jnp.asarray(REWARD, jnp.float32)[here]
        info = {"final_observation": self.observe(place)}
        return self.observe(after.place), after, reward, terminated, truncated, info


class Table(eqx.Module):
    logits: jax.Array

    def __call__(self, obs):
        return purerl.Categorical(obs @ self.logits)


def table(key, obs_space, action_space):
    return Table(jnp.asarray(LOGITS, jnp.float32))


class Values(eqx.Module):
    of_state: jax.Array

    def __call__(self, obs):
        return obs @ self.of_state


def exact_values(key, obs_space, action_space):
    return Values(jnp.asarray(VALUE, jnp.float32))


# What is exact, in NumPy


def action_value(value):
    """Q, of the value of what follows, `[..., states]`."""
    return REWARD + DISCOUNT * (1 - ENDS) * np.einsum("san,...n->...sa", MOVES, value)


def solved_values():
    """V where a time limit is no end: what a truncation bootstraps with."""
    go_on = np.einsum("sa,sa,san->sn", POLICY, 1 - ENDS, MOVES)
    return np.linalg.solve(np.eye(STATES) - DISCOUNT * go_on, (POLICY * REWARD).sum(axis=1))


VALUE = solved_values()


def visits(length):
    """The chance of each state at each age, at each step of a rollout that begins with a reset."""
    chance = np.zeros((length, LIMIT, STATES))
    chance[0, 0, 0] = 1
    for t in range(length - 1):
        go_on = np.einsum("es,sa,sa,san->en", chance[t], POLICY, 1 - ENDS, MOVES)
        chance[t + 1, 1:] = go_on[:-1]
        chance[t + 1, 0, 0] = 1 - go_on[:-1].sum()
    return chance


def mean_of(chance, advantage):
    """`−E[advantage · ∇ log π]` over visited states, [states, actions], as of a loss."""
    at_mean = (POLICY * advantage).sum(axis=-1, keepdims=True)
    gradient = chance[..., None] * POLICY * (advantage - at_mean)
    return -gradient.reshape(-1, STATES, ACTIONS).sum(axis=0) / chance.sum()


def exact_with_baseline(length):
    return mean_of(visits(length), action_value(VALUE) - VALUE[:, None])


def exact_without(length, lookahead):
    """Of the steps that see their episode's last: their returns are those of the time limit."""
    value, by_age = np.zeros(STATES), []
    for _ in range(LIMIT):
        quality = action_value(value)
        by_age.insert(0, quality)
        value = (POLICY * quality).sum(axis=1)
    seen = length - np.arange(length)[:, None]
    kept = seen >= np.minimum(lookahead, LIMIT - np.arange(LIMIT))
    return mean_of(visits(length) * kept[..., None], np.stack(by_age))


# What is estimated

BLOCKS, ENVS = 128, 1024  # 131,072 rollouts


@jax.jit
def gradients(config):
    """The gradient of each block of rollouts, `[blocks, states, actions]`."""
    policy = as_network(config.policy(None, None, None), None)
    baseline = config.baseline and as_network(config.baseline(None, None, None), None)

    def of_block(key):
        reset_key, act_key = jax.random.split(key)
        _, rollout, _ = collect(act_key, policy, reset_envs(reset_key, config), config)
        values = (None, None) if baseline is None else rollout_values(baseline, rollout)
        batch = make_batch(rollout, values[0], config.estimate(rollout, *values, config.hyper))

        def objective(policy, batch):
            return policy_objective(policy, batch, config)

        return mean_gradient(parameters(policy), policy, batch, objective)[0]

    leaves = jax.tree.leaves(jax.lax.map(of_block, jax.random.split(jax.random.key(0), BLOCKS)))
    [gradient] = [leaf for leaf in leaves if leaf.shape[1:] == (STATES, ACTIONS)]
    return gradient


def estimated(algorithm, length, **settings):
    """The mean over all rollouts, and its standard error."""
    sizes = {"num_envs": ENVS, "rollout_length": length, "total_steps": ENVS * length}
    networks = {"policy": table} | (
        {"baseline": exact_values} if algorithm is not purerl.reinforce else {}
    )
    plain = {"normalize_advantage": False, "discount": DISCOUNT}
    blocks = gradients(algorithm(MDP(), **sizes, **networks, **plain, **settings))
    return blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / np.sqrt(BLOCKS)


def assert_unbiased(estimate, exact):
    mean, error = estimate
    np.testing.assert_array_less(np.abs(mean - exact), 4.5 * error)
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(exact)  # so that a bias would be seen


@pytest.mark.parametrize("length", [2 * LIMIT, 2 * LIMIT + 3])
def test_reinforces_gradient_is_exact_where_it_looks_ahead_a_whole_episode(length):
    assert_unbiased(estimated(purerl.reinforce, length), exact_without(length, LIMIT))


def test_a_shorter_lookahead_is_biased_by_what_lies_beyond_it():
    mean, _ = estimated(purerl.reinforce, 2 * LIMIT, lookahead=1)
    exact = exact_without(2 * LIMIT, 1)
    assert np.linalg.norm(mean - exact) > 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize("algorithm", [purerl.vpg, purerl.a2c, purerl.ppo])
def test_with_an_exact_value_every_gradient_is_exact_in_a_rollout_of_any_length(algorithm):
    settings = {} if algorithm is purerl.vpg else {"gae_lambda": 0.7}
    assert_unbiased(estimated(algorithm, 7, **settings), exact_with_baseline(7))
