"""A seed is a seed: what seed 5 is depends on the root key and on 5 alone."""

import dataclasses
import re
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe
from trees import assert_bitwise_equal

import purerl
from purerl.agents import state_shardings
from purerl.compute.mapping import block_size, map_seeds, program_over_seeds
from purerl.compute.mesh import seed_mesh
from purerl.rollout import collect
from purerl.seeds import EVALUATE, FIRST_STREAM, INIT, TRAIN, stream_key
from purerl.update import update

EIGHT = tuple(range(8))
NUM_SEEDS = 6  # also what five seeds on two devices are padded to: one program
SIXTY_FOUR = tuple(int(i) for i in np.random.default_rng(0).permutation(64))


def first_update(key, config):
    """What a seed begins with: its state, its first rollout, and what one update makes of it."""
    state = purerl.init(key, config)
    rollout_key, update_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    _, rollout, _ = collect(rollout_key, state.learner.policy, state.envs, config)
    return state, rollout, update(update_key, state.learner, rollout, config)


def alone(config):
    return jax.jit(first_update)(purerl.seed_keys(0, [5])[0], config)


def vmapped(ids):
    def run(config):
        out = jax.jit(jax.vmap(first_update, (0, None)))(purerl.seed_keys(0, ids), config)
        return seed_5_of(ids, out)

    return run


def mapped(ids, num_devices):
    def run(config):
        devices = jax.devices()[:num_devices]
        out = map_seeds(
            first_update, purerl.seed_keys(0, ids), config, mesh=seed_mesh(devices, len(ids))
        )
        return seed_5_of(ids, out)

    return run


def seed_5_of(ids, out):
    return jax.tree.map(lambda leaf: leaf[ids.index(5)], out)


LAYOUTS = {
    "vmap over 8": vmapped(EIGHT),
    "vmap over 64, shuffled": vmapped(SIXTY_FOUR),
    "8 on one device": mapped(EIGHT, 1),
    "5 on two devices, padded": mapped((9, 5, 1, 0, 3), 2),
}


@pytest.fixture(scope="module")
def config():
    return purerl.vpg("CartPole-v1", num_envs=4, rollout_length=16, total_steps=128, hidden=(16,))


@pytest.fixture(scope="module")
def seed_5(config):
    return alone(config)


@pytest.fixture(scope="module")
def eight_starts(config):
    return jax.jit(jax.vmap(purerl.init, (0, None)))(purerl.seed_keys(0, EIGHT), config)


@pytest.fixture(scope="module")
def vmapped_training(config):
    return jax.jit(jax.vmap(purerl.train, (0, None)))(purerl.seed_keys(0, NUM_SEEDS), config)


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS))
def seed_5_among_others(request, config):
    return request.param(config)


@pytest.mark.parametrize("ids", [EIGHT, SIXTY_FOUR, (9, 5, 1)])
def test_the_key_of_seed_5_is_the_same_whatever_ids_stand_beside_it(ids):
    assert_bitwise_equal(purerl.seed_keys(0, ids)[ids.index(5)], purerl.seed_keys(0, [5])[0])


def test_a_count_means_the_ids_below_it():
    assert_bitwise_equal(purerl.seed_keys(0, 8), purerl.seed_keys(0, EIGHT))


def test_a_root_is_an_int_or_a_key_and_another_root_gives_other_keys():
    assert_bitwise_equal(purerl.seed_keys(7, 3), purerl.seed_keys(jax.random.key(7), 3))
    bits = jax.random.key_data(jnp.stack([purerl.seed_keys(root, 3) for root in (7, 8)]))
    assert len(np.unique(bits.reshape(6, -1), axis=0)) == 6


def test_seed_5_starts_from_the_same_parameters_and_keys(seed_5, seed_5_among_others):
    state, other = seed_5[0], seed_5_among_others[0]
    assert_bitwise_equal(other.key, state.key)
    assert_bitwise_equal(other.envs.episode_return, state.envs.episode_return)
    # The same draws, of which other program shapes make a matrix in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        eqx.filter(other.learner, eqx.is_array),
        eqx.filter(state.learner, eqx.is_array),
    )


def test_seed_5_meets_the_same_first_rollout(seed_5, seed_5_among_others):
    rollout, other = seed_5[1], seed_5_among_others[1]
    for name in ("action", "reward", "terminated", "truncated"):
        assert_bitwise_equal(getattr(other, name), getattr(rollout, name))
    np.testing.assert_allclose(other.obs, rollout.obs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(other.next_obs, rollout.next_obs, rtol=0, atol=1e-6)


def test_seed_5_makes_the_same_first_update(seed_5, seed_5_among_others):
    (learner, report), (other, other_report) = seed_5[2], seed_5_among_others[2]
    # Sums are reordered between program shapes. Adam moves each weight by up to its rate of
    # 3e-3 or 5e-3, 10 times for the baseline; 1e-4 is far below that.
    for network in ("policy", "baseline"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            getattr(other, network),
            getattr(learner, network),
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), other_report, report
    )


def test_seeds_are_not_all_alike(eight_starts):
    weights = eight_starts.learner.policy.arrays.network.mlp.layers[0].weight
    assert not np.array_equal(weights[0], weights[1])
    assert not np.array_equal(eight_starts.envs.obs[0], eight_starts.envs.obs[1])


@pytest.mark.parametrize("num_devices", [1, 2])
def test_train_seeds_trains_the_agents_of_a_vmapped_train(num_devices, config, vmapped_training):
    keys, mesh = purerl.seed_keys(0, NUM_SEEDS), seed_mesh(jax.devices()[:num_devices])
    states, metrics = purerl.train_seeds(keys, config, mesh=mesh)
    expected_states, expected = vmapped_training
    assert_bitwise_equal(states.key, expected_states.key)
    assert metrics.episode_return.shape == (NUM_SEEDS, config.num_updates)
    first, first_expected = (jax.tree.map(lambda x: x[:, 0], m) for m in (metrics, expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), first, first_expected
    )


def test_the_streams_of_a_root_and_of_its_seeds_are_never_the_same():
    def bits(keys):
        return {tuple(row) for row in np.reshape(jax.random.key_data(keys), (-1, 2)).tolist()}

    root = jax.random.key(0)
    ids = [0, 1, 2, FIRST_STREAM - 1]
    seeds = purerl.seed_keys(root, ids)
    of_root = bits(jnp.stack([stream_key(root, number) for number in (INIT, TRAIN, EVALUATE)]))
    of_seeds = [
        bits(jnp.stack([stream_key(seed, number) for number in (INIT, TRAIN, EVALUATE)]))
        for seed in seeds
    ]
    everything = [bits(seeds), of_root, *of_seeds, bits(jax.random.split(root, 64))]
    # split(root)[i] is fold_in(root, i): the only ones that meet are the seeds' keys themselves.
    assert len(set.union(*everything[:-1])) == 4 + 3 + 4 * 3
    assert everything[-1] & (set.union(*everything[1:-1])) == set()


def test_no_update_and_no_seed_has_the_number_of_a_stream():
    # Training folds its step into a key of its own, and seeds their ids into the root.
    config = purerl.vpg(Probe(), num_envs=2, rollout_length=4, total_steps=16)
    step = jax.eval_shape(purerl.init, jax.random.key(0), config).step
    assert np.iinfo(step.dtype).max < min(INIT, TRAIN, EVALUATE)
    with pytest.raises(ValueError, match=r"between 0 and 2\*\*31 - 1"):
        purerl.seed_keys(0, [INIT])


@pytest.mark.parametrize("root", [-1, 2**32, 10**30, 0.5, "0", None])
def test_a_root_that_cannot_be_is_refused_in_one_line(root, without_type_checks):
    with pytest.raises(ValueError, match=r"root = .* from 0 to 2\*\*32 - 1") as refusal:
        purerl.seed_keys(root, 2)
    assert "\n" not in str(refusal.value)


def test_train_seeds_spreads_seeds_over_all_devices(config):
    states, metrics = purerl.train_seeds(purerl.seed_keys(0, NUM_SEEDS), config)
    for leaf in (states.step, states.learner.policy.arrays, metrics.entropy):
        for array in jax.tree.leaves(leaf):
            assert len(array.sharding.device_set) == len(jax.devices()) == 2


def test_five_seeds_on_two_devices_are_five(config, eight_starts):
    states, metrics = purerl.train_seeds(purerl.seed_keys(0, 5), config)
    assert {leaf.shape[0] for leaf in jax.tree.leaves((states, metrics))} == {5}
    assert_bitwise_equal(states.key, eight_starts.key[:5])


@pytest.mark.slow
def test_train_seeds_can_be_a_part_of_a_compiled_function(config):
    keys = purerl.seed_keys(0, 5)
    expected = purerl.train_seeds(keys, config)
    shapes = jax.eval_shape(purerl.train_seeds, keys, config)
    traced = {
        "all": jax.jit(purerl.train_seeds)(keys, config),
        "nothing": jax.jit(lambda: purerl.train_seeds(keys, config))(),
    }
    assert jax.tree.map(lambda leaf: leaf.shape, expected) == jax.tree.map(
        lambda leaf: leaf.shape, shapes
    )
    for states, metrics in traced.values():
        assert_bitwise_equal(states.key, expected[0].key)
        # Another program: the first update alone is comparable.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[:, 0], b[:, 0], rtol=1e-3, atol=1e-5),
            metrics,
            expected[1],
        )


def test_map_seeds_maps_every_batched_leaf_and_broadcasts_the_rest():
    batched = {"a": jnp.arange(5.0), "b": jnp.arange(10).reshape(5, 2)}

    def weigh(entry, weight):
        return weight * entry["a"] + entry["b"].sum()

    out = map_seeds(weigh, batched, jnp.float32(10))
    np.testing.assert_array_equal(out, [1, 15, 29, 43, 57])


@pytest.mark.parametrize(("share", "block", "expected"), [(31, 16, 32), (6, 4, 6), (5, 1, 5)])
def test_blocks_are_of_one_size_and_as_few_as_can_be(share, block, expected):
    called = []

    def count(x):
        jax.debug.callback(lambda x: called.append(int(x)), x)
        return 2 * x

    out = map_seeds(count, jnp.arange(share), mesh=seed_mesh(jax.devices()[:1]), block=block)
    jax.effects_barrier()
    np.testing.assert_array_equal(out, 2 * np.arange(share))
    assert sorted(called) == [*range(share), *[share - 1] * (expected - share)]


COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def compiled_text(function, keys, *broadcast, **how):
    program = program_over_seeds(function, seed_mesh(), **how)
    return program.lower(keys, *broadcast).compile().as_text()


def test_seeds_on_two_devices_never_talk_to_each_other(config):
    # The program of `train_seeds` itself.
    how = {"block": block_size(config.num_envs), "nested": False, "shardings": state_shardings}
    text = compiled_text(purerl.train, purerl.seed_keys(0, NUM_SEEDS), config, **how)
    assert not re.findall(COLLECTIVES, text)


def test_evaluation_of_seeds_on_two_devices_never_talks_either(config):
    def evaluate(key, config):
        policy = purerl.init(key, config).learner.policy
        return purerl.evaluate(key, policy, config, num_episodes=2, max_steps=10)

    assert not re.findall(COLLECTIVES, compiled_text(evaluate, purerl.seed_keys(0, 4), config))


def test_the_search_for_collectives_finds_one():
    def total(key):
        return jax.lax.psum(jax.random.uniform(key), "seeds")

    assert re.findall(COLLECTIVES, compiled_text(total, purerl.seed_keys(0, 4)))


def test_64_seeds_initialise_and_train_without_hanging():
    # In a process of its own: a dead-lock inside a LAPACK call cannot be interrupted.
    code = """
import os, jax, purerl
from purerl.compute.mapping import CPU_OPTIONS
if "optimization_level=0" in os.environ.get("XLA_FLAGS", ""):  # as in `conftest.py`
    CPU_OPTIONS.clear()
config = purerl.vpg("CartPole-v1", num_envs=4, rollout_length=16, total_steps=128)
keys = purerl.seed_keys(0, 64)
states, _ = jax.jit(jax.vmap(purerl.train, (0, None)))(keys, config)
sharded, _ = purerl.train_seeds(keys, config)
print(*{int(step) for step in [*states.step, *sharded.step]}, int((states.failed_at >= 0).sum()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.split() == ["2", "0"], done.stderr


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        (0, "at least one seed"),
        ([], "at least one seed"),
        (-3, "at least one seed"),
        ([3, -1], "between 0 and"),
        ([2**31], "between 0 and"),
        ([4, 1, 4], r"repeat \[4\]"),
    ],
)
def test_ids_that_cannot_be_are_refused_in_one_line(seeds, says):
    with pytest.raises(ValueError, match=says) as refusal:
        purerl.seed_keys(0, seeds)
    assert "seeds" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("seeds", [8.0, [0.5], "12", None])
def test_ids_that_are_no_whole_numbers_are_refused_in_one_line(seeds, without_type_checks):
    with pytest.raises(ValueError, match="count or a sequence of ids") as refusal:
        purerl.seed_keys(0, seeds)
    assert repr(seeds) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "keys",
    [
        jax.random.key(0),
        jnp.zeros((2, 2), jnp.uint32),
        [jax.random.key(0), jax.random.key(1)],
        purerl.seed_keys(0, 2)[:0],
        8,
    ],
)
def test_keys_that_are_no_batch_of_typed_keys_are_refused(keys, config, without_type_checks):
    with pytest.raises(ValueError, match=r"keys is .*one typed key a seed.*seed_keys") as refusal:
        purerl.train_seeds(keys, config)
    assert "\n" not in str(refusal.value)


def test_equal_functions_are_one_program():
    @dataclasses.dataclass(frozen=True)
    class Add:
        number: int

        def __call__(self, x):
            return x + self.number

    assert program_over_seeds(Add(1), seed_mesh()) is program_over_seeds(Add(1), seed_mesh())
    assert program_over_seeds(Add(1), seed_mesh()) is not program_over_seeds(Add(2), seed_mesh())


def test_a_state_of_a_seed_is_one_slice_of_the_batch(config, eight_starts):
    state = seed_5_of(EIGHT, eight_starts)
    key = purerl.seed_keys(0, [5])[0]
    assert_bitwise_equal(eqx.filter(state, eqx.is_array), jax.jit(purerl.init)(key, config))


def test_an_environment_without_floats_in_its_state_trains_on_two_devices():
    # Nothing to check for NaN: jaxlib 0.11.2 crashed where nothing was reduced.
    sizes = {"num_envs": 4, "rollout_length": 8, "total_steps": 64, "hidden": (8,)}
    config = purerl.vpg("FourRooms-misc", **sizes)
    state = jax.eval_shape(purerl.init, jax.random.key(0), config).envs.state
    assert not any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state))
    states, metrics = purerl.train_seeds(purerl.seed_keys(0, 2), config)
    np.testing.assert_array_equal(states.failed_at, [-1, -1])
    assert np.all(np.isfinite(metrics.policy_loss))
