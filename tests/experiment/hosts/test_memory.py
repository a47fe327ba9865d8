"""Memory: what a run needs, seeds in batches, and that nothing grows with the run."""

from typing import Any

import jax
import numpy as np
import pytest
from probes import Probe
from small import EPISODES, SIZES
from trees import assert_bitwise_equal

import purerl
from purerl.experiment import programs
from purerl.experiment.batches import SeedBatches
from purerl.experiment.hosts import memory
from purerl.experiment.hosts.memory import (
    _cgroup_headroom,
    _folder_headroom,
    parse_bytes,
)
from purerl.experiment.hosts.stopping import RunError
from purerl.seeds import seed_keys

HOW: Any = {"updates_per_chunk": 2, "evaluation_episodes": EPISODES, "progress": False}


def config(num_updates=6):
    env = Probe("match", limit=True, length=0)
    return purerl.vpg(env, **(SIZES | {"total_steps": 32 * num_updates}))


def compiled(num_seeds, limit=None, batch=None, num_updates=6, episodes=0):
    return programs.compile_programs(
        seed_keys(0, num_seeds),
        config(num_updates),
        None,
        chunk_updates=2,
        episodes=episodes,
        seed_batch=batch,
        memory_limit=limit,
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    return purerl.run(config(), 64, tmp_path_factory.mktemp("together"), **HOW)


@pytest.mark.parametrize("batch", [64, 16, 7])
def test_seed_batches_train_the_same_seeds(batch, together, tmp_path):
    apart = purerl.run(config(), 64, tmp_path, seed_batch=batch, **HOW)
    ours, theirs = apart.states, together.states
    np.testing.assert_array_equal(jax.random.key_data(ours.key), jax.random.key_data(theirs.key))
    for x, y in zip(jax.tree.leaves(apart.metrics), jax.tree.leaves(together.metrics), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x[:, :2], y[:, :2], rtol=1e-4, atol=1e-5)
    assert np.asarray(apart.states.failed_at).shape == (64,)


def test_seed_batches_resume_bitwise(tmp_path, monkeypatch):
    from interruptions import Interrupted, interrupt_after

    how: Any = HOW | {"seed_batch": 7, "checkpoint_every": 2}
    whole = purerl.run(config(), 20, tmp_path / "whole", **how)
    with monkeypatch.context() as patch:
        interrupt_after(4, patch)
        with pytest.raises(Interrupted):
            purerl.run(config(), 20, tmp_path / "part", **how)
    again = purerl.resume(tmp_path / "part", config(), progress=False)
    assert again.resumed_at == 4
    assert_bitwise_equal(again.states, whole.states)
    assert_bitwise_equal(again.metrics, whole.metrics)


def test_batches_advance_one_chunk_each_in_turn():
    prepared = compiled(21, batch=7)
    calls = []
    chunk = prepared.chunk

    def counted(state, agents, *rest):
        calls.append(jax.random.key_data(agents.key)[0].tolist())
        return chunk(state, agents, *rest)

    for _ in SeedBatches(prepared._replace(chunk=counted)).train():
        pass
    assert len(calls) == 9
    assert calls[:3] == calls[3:6] == calls[6:]
    assert len({tuple(call) for call in calls[:3]}) == 3


@pytest.mark.slow
def test_seeds_that_do_not_fit_are_trained_in_batches():
    everything = compiled(64)
    one_a_device = compiled(64, batch=2)
    assert everything.seed_batch == 64
    limit = (everything.memory + one_a_device.memory) // 2
    fitted = compiled(64, limit=limit)
    assert fitted.memory <= limit
    assert 2 < fitted.seed_batch < 64
    assert len(fitted.batches) == -(-64 // fitted.seed_batch)


def test_memory_that_is_not_enough_is_told_before_training():
    needs = compiled(16).memory
    with pytest.raises(ValueError, match=r"seed_batch = 16 needs .* use (\d+) or fewer") as error:
        compiled(16, limit=needs - 1, batch=16)
    fits = int(str(error.value).split("use ")[1].split()[0])
    assert compiled(16, limit=needs - 1, batch=fits).seed_batch == fits
    with pytest.raises(ValueError, match=r"memory_limit = 1 kB .* use fewer num_envs"):
        compiled(16, limit=1000)


def test_the_devices_of_a_run_alone_share_the_free_memory(monkeypatch):
    monkeypatch.setattr(memory, "_free_bytes", lambda: 1000)
    monkeypatch.setattr(memory, "_cgroup_headroom", lambda: None)
    assert [memory.available_bytes(jax.devices()[:count]) for count in (1, 2)] == [900, 450]
    monkeypatch.setattr(memory, "_free_bytes", lambda: 10**18)
    needs = compiled(1).memory
    monkeypatch.setattr(memory, "_free_bytes", lambda: int(1.5 * needs))
    assert compiled(1).memory == needs


def test_out_of_memory_says_how_many_seeds_to_try():
    prepared = compiled(64)

    def starved(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    with pytest.raises(RunError, match=r"out of memory with 64 seeds at once.*seed_batch=32"):
        next(SeedBatches(prepared._replace(chunk=starved)).train())


def test_pages_of_files_are_memory_that_is_there(tmp_path):
    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "900\n"),
        ("memory.stat", "anon 100\ninactive_file 500\nactive_file 300\n"),
    ):
        (tmp_path / name).write_text(text)
    assert _folder_headroom(tmp_path) == 600


def test_the_least_that_any_control_group_around_the_process_leaves_counts(tmp_path):
    (tmp_path / "membership").write_text("1:cpu:/else\n0::/job/step\n")
    where = (tmp_path / "root", tmp_path / "membership")
    assert _cgroup_headroom(*where) is None
    for group, limit in (("", "max"), ("job", "900"), ("job/step", "max"), ("job/other", "100")):
        folder = tmp_path / "root" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text("200\n")
        (folder / "memory.stat").write_text("anon 200\n")
    assert _cgroup_headroom(*where) == 700
    (tmp_path / "root/job/step/memory.max").write_text("300\n")
    assert _cgroup_headroom(*where) == 100
    assert _cgroup_headroom(tmp_path / "root", tmp_path / "missing") is None


def test_out_of_memory_is_told_wherever_it_happens():
    def starved(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    prepared = compiled(64, episodes=EPISODES)
    begun = next(SeedBatches(prepared).train())
    with pytest.raises(RunError, match="seed_batch=32"):
        SeedBatches(prepared._replace(evaluate=starved)).evaluate(begun.states, 2)
    with pytest.raises(RunError, match="seed_batch=32"):
        next(SeedBatches(prepared._replace(init=starved)).train())
    with pytest.raises(RunError, match="one a device: use fewer num_envs"):
        next(SeedBatches(prepared._replace(init=starved, seed_batch=2)).train())
    much = prepared._replace(init=starved, memory=10**18)  # more than there is
    with pytest.raises(RunError, match=r"seed_batch=2$"):
        next(SeedBatches(much).train())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_run(tmp_path):
    assert compiled(4, num_updates=6).memory == compiled(4, num_updates=600).memory

    def most(num_updates):
        seen = []

        def measure(chunk):
            seen.append(sum(array.nbytes for array in jax.live_arrays()))

        directory = tmp_path / str(num_updates)
        how: Any = {"updates_per_chunk": 2, "progress": False, "evaluation_episodes": 0}
        before = sum(array.nbytes for array in jax.live_arrays())
        purerl.run(config(num_updates), 4, directory, hooks=[measure], **how)
        return max(seen) - before

    state = sum(
        leaf.nbytes
        for leaf in jax.tree.leaves(jax.vmap(purerl.init, (0, None))(seed_keys(0, 4), config()))
        if not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
    most(10)  # what the first run leaves for good, such as constants
    assert most(400) - most(20) < 3 * state


@pytest.mark.parametrize(
    ("text", "count"), [("500MB", 500_000_000), ("1.5GB", 1_500_000_000), ("3 kB", 3000)]
)
def test_bytes_are_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "4", "4 gigs", "-1GB", "0GB"])
def test_bytes_that_cannot_be_read_are_refused(text):
    with pytest.raises(ValueError, match=r"write 500MB or 1\.5GB"):
        parse_bytes(text)
