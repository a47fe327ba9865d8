"""Reward-to-go and GAE against slow loops, identities between them, and hand-worked boundaries."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purerl.compute import platforms
from purerl.returns import gae, reward_to_go

T, N = 7, 2
DISCOUNT, LAMBDA = 0.9, 0.8

# Compiled once: each drawn example has one of two shapes.
jit_reward_to_go = jax.jit(reward_to_go)
jit_gae = jax.jit(gae)


@st.composite
def rollouts(draw):
    """Rewards, values and flags of [T] or [T, N]: every mix of the two flags at every step."""
    shape = draw(st.sampled_from([(T,), (T, N)]))
    numbers = hnp.arrays(np.float32, shape, elements=st.integers(-8, 8).map(float))
    flags = hnp.arrays(bool, shape)
    names = ("reward", "value", "next_value", "terminated", "truncated")
    strategies = (numbers, numbers, numbers, flags, flags)
    return {name: draw(each) for name, each in zip(names, strategies, strict=True)}


def slow_reward_to_go(reward, terminated, truncated, next_value):
    """One column at a time, forwards from each step to the end of its episode."""
    out = np.zeros(reward.shape, np.float64)
    for column in np.ndindex(reward.shape[1:]):
        for start in range(len(reward)):
            factor = 1.0
            for t in range(start, len(reward)):
                at = (t, *column)
                out[start, *column] += factor * reward[at]
                factor *= DISCOUNT
                if terminated[at]:
                    break
                if truncated[at] or t == len(reward) - 1:
                    out[start, *column] += factor * next_value[at]
                    break
    return out


def slow_gae(reward, value, next_value, terminated, truncated):
    """One column at a time, forwards from each step to the end of its episode."""
    out = np.zeros(reward.shape, np.float64)
    for column in np.ndindex(reward.shape[1:]):
        for start in range(len(reward)):
            factor = 1.0
            for t in range(start, len(reward)):
                at = (t, *column)
                bootstrap = 0.0 if terminated[at] else next_value[at]
                out[start, *column] += factor * (reward[at] + DISCOUNT * bootstrap - value[at])
                factor *= DISCOUNT * LAMBDA
                if terminated[at] or truncated[at]:
                    break
    return out


@settings(max_examples=60, deadline=None)
@given(rollouts())
def test_reward_to_go_is_the_slow_loop_and_reads_next_value_only_where_an_episode_is_cut(r):
    last = np.arange(T).reshape(T, *[1] * (r["reward"].ndim - 1)) == T - 1
    read = (r["truncated"] | last) & ~r["terminated"]
    next_value = np.where(read, r["next_value"], np.nan).astype(np.float32)
    flags = {"terminated": r["terminated"], "truncated": r["truncated"]}
    got = jit_reward_to_go(r["reward"], DISCOUNT, **flags, next_value=next_value)
    want = slow_reward_to_go(r["reward"], **flags, next_value=next_value)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rollouts())
def test_gae_is_the_slow_loop_and_reads_no_next_value_behind_a_termination(r):
    r["next_value"] = np.where(r["terminated"], np.nan, r["next_value"]).astype(np.float32)
    got = jit_gae(**r, discount=DISCOUNT, gae_lambda=LAMBDA)
    np.testing.assert_allclose(got, slow_gae(**r), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rollouts())
def test_gae_with_lambda_1_plus_the_value_is_reward_to_go(r):
    # The value of a step inside an episode is that of its predecessor's successor.
    done = r["terminated"] | r["truncated"]
    r["next_value"][:-1] = np.where(done[:-1], r["next_value"][:-1], r["value"][1:])
    flags = {name: r[name] for name in ("terminated", "truncated", "next_value")}
    advantage = jit_gae(**r, discount=DISCOUNT, gae_lambda=1.0)
    returns = jit_reward_to_go(r["reward"], DISCOUNT, **flags)
    np.testing.assert_allclose(advantage + r["value"], returns, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(rollouts())
def test_gae_with_lambda_0_is_the_td_error(r):
    bootstrap = np.where(r["terminated"], 0, r["next_value"])
    td_error = r["reward"] + DISCOUNT * bootstrap - r["value"]
    got = jit_gae(**r, discount=DISCOUNT, gae_lambda=0.0)
    np.testing.assert_allclose(got, td_error, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        # Rewards 1, discount 0.5, next values 10, 20, 30, 40.
        pytest.param("0000", "0000", [4.375, 6.75, 11.5, 21.0], id="unfinished"),
        pytest.param("0001", "0000", [1.875, 1.75, 1.5, 1.0], id="terminated on the last step"),
        pytest.param("0000", "0001", [4.375, 6.75, 11.5, 21.0], id="truncated on the last step"),
        pytest.param("0001", "0001", [1.875, 1.75, 1.5, 1.0], id="both: terminated wins"),
        pytest.param("0100", "0000", [1.5, 1.0, 11.5, 21.0], id="terminated half way"),
        pytest.param("0000", "0100", [6.5, 11.0, 11.5, 21.0], id="truncated half way"),
        pytest.param("0101", "0000", [1.5, 1.0, 1.5, 1.0], id="two whole episodes"),
        pytest.param("1111", "0000", [1.0, 1.0, 1.0, 1.0], id="terminated episodes of length 1"),
        pytest.param("0000", "1111", [6.0, 11.0, 16.0, 21.0], id="truncated episodes of length 1"),
    ],
)
def test_reward_to_go_at_each_kind_of_boundary(terminated, truncated, expected):
    got = jit_reward_to_go(
        jnp.ones(4),
        0.5,
        terminated=np.array([flag == "1" for flag in terminated]),
        truncated=np.array([flag == "1" for flag in truncated]),
        next_value=jnp.array([10.0, 20.0, 30.0, 40.0]),
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_reward_to_go_without_flags_is_one_whole_episode():
    expected = [9.561792, 8.648275, 7.725531, 6.7934656, 5.8519855]
    expected += [4.9009953, 3.940399, 2.9701, 1.99, 1.0]
    np.testing.assert_allclose(reward_to_go(jnp.ones(10), 0.99), expected, rtol=1e-6)


def test_reward_to_go_without_next_value_adds_nothing_where_an_episode_is_cut():
    truncated = jnp.array([False, True, False])
    got = reward_to_go(jnp.ones(3), 0.5, truncated=truncated)
    np.testing.assert_allclose(got, [1.5, 1.0, 1.0])


def test_integer_rewards_are_summed_as_floats():
    got = reward_to_go(jnp.arange(3), 0.5)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [1.0, 2.0, 2.0])


@pytest.fixture
def _shapes_unchecked(monkeypatch):
    """As a user runs it: in the tests jaxtyping would refuse a wrong shape first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("_shapes_unchecked")
@pytest.mark.parametrize("name", ["terminated", "truncated", "next_value"])
def test_reward_to_go_names_the_field_of_a_wrong_shape(name):
    wrong = jnp.zeros((3, 1), bool if name != "next_value" else float)
    with pytest.raises(ValueError, match=rf"{name} has shape \(3, 1\).*\(3,\)"):
        reward_to_go(jnp.ones(3), 0.9, **{name: wrong})


@pytest.mark.usefixtures("_shapes_unchecked")
@pytest.mark.parametrize("name", ["value", "next_value", "terminated", "truncated"])
def test_gae_names_the_field_of_a_wrong_shape(name):
    right = dict.fromkeys(("reward", "value", "next_value"), jnp.ones(3))
    right |= dict.fromkeys(("terminated", "truncated"), jnp.zeros(3, bool))
    wrong = right | {name: right[name][:2]}
    with pytest.raises(ValueError, match=rf"{name} has shape \(2,\).*\(3,\)"):
        gae(**wrong, discount=0.9, gae_lambda=0.9)


@pytest.mark.usefixtures("_shapes_unchecked")
@pytest.mark.parametrize("shape", [(), (0,), (0, 2)])
def test_a_reward_without_steps_is_refused(shape):
    with pytest.raises(ValueError, match="reward has shape"):
        reward_to_go(jnp.ones(shape), 0.9)


def test_integer_rewards_are_discounted_as_floats():
    ones, never = jnp.ones(5, jnp.int32), jnp.zeros(5, bool)
    zero = jnp.zeros(5)
    found = gae(ones, zero, zero, never, never, 0.99, 0.95)
    wanted = gae(ones.astype(jnp.float32), zero, zero, never, never, 0.99, 0.95)
    np.testing.assert_array_equal(found, wanted)
    assert float(found[0]) > 4


@pytest.mark.parametrize("reverse", [False, True])
def test_an_accelerator_s_rounds_are_the_steps_of_a_cpu(reverse):
    rng = np.random.default_rng(0)
    term = rng.normal(size=(37, 5)).astype(np.float32)
    decay = np.where(rng.random((37, 5)) < 0.2, 0, 0.9).astype(np.float32)
    cut = np.argwhere(decay[:, 0] == 0)[1, 0]
    term[cut + (1 if reverse else -1), 0] = np.nan  # behind a cut: it must not leak
    term, decay = jnp.asarray(term), jnp.asarray(decay)
    steps = platforms._sequential(term, decay, reverse=reverse)
    rounds = platforms._parallel(term, decay, reverse=reverse)
    assert np.isfinite(steps[cut, 0])
    np.testing.assert_allclose(rounds, steps, rtol=1e-5, atol=1e-5)
