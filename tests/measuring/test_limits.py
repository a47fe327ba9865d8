"""What bounds training is what it says: spreads, FLOPs of products, floors that step every env."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purerl
from purerl.compute.hoisting import UNROLL
from purerl.compute.mapping import map_seeds, program_over_seeds
from purerl.compute.mesh import seed_mesh
from purerl.measuring import limits
from purerl.measuring.floors import EnvSteps
from purerl.measuring.limits import products_per_step
from purerl.measuring.spreads import ratio, spread, time_in_turn
from purerl.planning.targets import chip_of

HIDDEN = (32, 16)


def config(algo="ppo", env="CartPole-v1", **settings):
    sizes = {"num_envs": 4, "rollout_length": 16, "total_steps": 128, "hidden": HIDDEN}
    return getattr(purerl, algo)(env, **(sizes | settings))


def test_a_spread_is_the_median_and_the_range():
    assert spread([3.0, 1.0, 2.0, 10.0]) == (2.5, 1.0, 10.0)
    assert spread([2500.0]).show(1e3, 1) == "2.5 [2.5, 2.5]"


def test_a_ratio_is_that_of_the_medians_and_ranges_over_neighbours():
    # The machine was half as fast in the second repeat, for both.
    assert ratio([20.0, 10.0, 22.0], [10.0, 5.0, 10.0]) == (2.0, 2.0, 2.2)


def test_a_ratio_lies_within_its_range():
    middle, low, high = ratio([1.0, 5.0, 9.0], [2.0, 30.0, 1.0])
    assert middle == 2.5
    assert low <= middle <= high


def test_programs_take_turns_in_an_order_that_rotates():
    turns = []
    programs = {name: functools.partial(turns.append, name) for name in "abc"}
    seconds = time_in_turn(programs, 2)
    assert "".join(turns) == "abc" + "bca"
    assert [len(each) for each in seconds.values()] == [2, 2, 2]


def dense_flops(sizes):
    """Forward, and the gradient by the parameters, layer by layer."""
    forward = backward = 0
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        forward += 2 * before * after
        backward += 2 * before * after  # by the weights
        if i > 0:
            backward += 2 * before * after  # by the input, which for the first is the observation
    return forward, forward + backward


@pytest.mark.parametrize(
    ("algo", "settings"),
    [
        ("ppo", {"epochs": 3, "num_minibatches": 2}),
        ("vpg", {"baseline_epochs": 5}),
        ("reinforce", {}),
        ("vpg", {"normalize_obs": True}),
    ],
)
def test_the_products_of_a_step_are_those_of_its_layers(algo, settings):
    made = config(algo, **settings)
    policy, policy_gradient = dense_flops((4, *HIDDEN, 2))
    baseline, baseline_gradient = dense_flops((4, *HIDDEN, 1))
    has_baseline = algo != "reinforce"
    expected = {
        "rollout": policy,
        "values": baseline * has_baseline,
        "policy update": made.epochs * policy_gradient,
        "baseline update": made.baseline_epochs * baseline_gradient * has_baseline,
    }
    assert products_per_step(made) == pytest.approx(expected, rel=0.01)


def test_the_products_of_a_rollout_are_those_that_xla_counts():
    policy = purerl.init(jax.random.key(0), config()).learner.policy
    obs = jnp.zeros((256, 4))
    logits = jax.jit(lambda policy, obs: jax.vmap(policy)(obs).logits)
    costs = logits.lower(policy, obs).compile().cost_analysis()
    assert costs is not None
    assert costs["flops"] / len(obs) == pytest.approx(products_per_step(config())["rollout"], 0.15)


@pytest.mark.parametrize("with_policy", [False, True])
def test_the_env_floor_steps_every_environment(with_policy):
    keys, steps = purerl.seed_keys(0, 2), EnvSteps(3, with_policy)
    obs, state, total = map_seeds(steps, keys, config())
    assert obs.shape == (2, 4, 4)
    # CartPole gives a reward of 1 a step, but none in the step after an episode's end.
    assert np.all((total > 24) & (total <= 3 * 16))
    other = program_over_seeds(steps, seed_mesh(), block=4)
    np.testing.assert_array_equal(other(keys, config())[2], total)
    assert jnp.all((state.time >= 0) & (state.time <= 3 * 16))


@pytest.mark.parametrize(("length", "unrolled"), [(40, UNROLL), (9, 9)])
def test_the_env_floor_is_unrolled_as_a_rollout_is(length, unrolled, monkeypatch):
    seen, scan = set(), jax.lax.scan

    def noted(body, carry, xs, **how):
        if len(jax.tree.leaves(xs)[0]) == length:
            seen.add(how.get("unroll", 1))
        return scan(body, carry, xs, **how)

    monkeypatch.setattr(jax.lax, "scan", noted)
    jax.eval_shape(EnvSteps(2, True), jax.random.key(0), config(rollout_length=length))
    assert seen == {1, unrolled}


@pytest.mark.parametrize("with_policy", [False, True])
def test_the_env_floor_acts_within_a_box(with_policy):
    total = jax.jit(EnvSteps(2, with_policy))(jax.random.key(0), config(env="Pendulum-v1"))[2]
    assert total.shape == (4,)
    assert np.all((total < 0) & (total > -17 * 2 * 16))


def test_a_known_device_has_its_data_sheet_and_another_is_measured(monkeypatch):
    class Device:
        device_kind = "NVIDIA H200"

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()] * 8)
    limit = limits.machine_limit()
    assert limit.flops_per_second == 8 * 495e12
    assert "data sheet of NVIDIA H200" in limit.source
    monkeypatch.undo()
    monkeypatch.setattr(limits, "SHAPES", ((64, 64, 64), (32, 32, 32)))
    monkeypatch.setattr(limits, "CPU_WORK", 1e7)
    with jax.default_matmul_precision("highest"):
        limit = limits.machine_limit()
    assert limit.flops_per_second > 1e6
    assert "this machine's best product" in limit.source
    assert limit.source.endswith(", with JAX_DEFAULT_MATMUL_PRECISION=highest")


def test_a_chain_of_products_is_longer_than_its_launches():
    # A launch is some 5 µs; an H200 does 495 TFLOP/s, and a core of a CPU 100 GFLOP/s.
    lengths = limits.chain_lengths("gpu")
    assert lengths[8192, 8192, 8192] * 2 * 8192**3 / 495e12 > 0.03
    assert max(lengths.values()) * 5e-6 < 1
    assert (8192, 8192, 8192) not in limits.chain_lengths("cpu")
    assert limits.chain_lengths("cpu")[2048, 2048, 2048] == 1


def test_jax_calls_some_tpus_by_other_names():
    names = {"TPU v4": "TPU v4", "TPU v5 lite": "TPU v5e", "TPU v5": "TPU v5p"}
    for kind, name in names.items():
        chip = chip_of(kind)
        assert chip is not None
        assert chip.name == name
    assert chip_of("cpu") is None
