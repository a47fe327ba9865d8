"""What is saved can be read: leaves by number, read back, below any path."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from directories import EVERY, advised, train_and_stop
from finished import train
from trees import assert_bitwise_equal

import purerl
from purerl.experiment.hosts.stopping import RunError
from purerl.experiment.store import checkpoint_writer, checkpoints, files, leaves
from purerl.experiment.store.checkpoint_writer import CheckpointWriter
from purerl.experiment.store.checkpoints import Snapshot, find_damage, restore_states
from purerl.experiment.store.identity import Identity
from purerl.experiment.store.paths import as_directory, resume_command, shown
from purerl.experiment.store.records import Records
from purerl.experiment.store.spec import RunSpec


def snapshot(updates, states: Any):
    return Snapshot(updates, states, Records())


def save(directory, *states, **options):
    """Save checkpoints of updates 1, 2, …"""
    writer = CheckpointWriter(directory, Identity.new()._asdict(), 0)
    for updates, each in enumerate(states, 1):
        writer.save(snapshot(updates, each), **options)
    writer.wait()


def test_names_that_look_alike_are_leaves_of_their_own(tmp_path):
    states = {
        "a.b": jnp.arange(3.0),
        "a": {"b": jnp.ones(3), "0": jnp.zeros(())},
        "0": jnp.full((2, 0), 7.0),
        "half": jnp.arange(4, dtype=jnp.bfloat16),
        "key": jax.random.split(jax.random.key(3), 2),
        "flag": jnp.array(True),
    }
    save(tmp_path, states)
    restored = restore_states(tmp_path, 1, jax.eval_shape(lambda: states))
    assert_bitwise_equal(restored, states)
    assert restored["half"].dtype == jnp.bfloat16


def test_pieces_of_several_processes_make_whole_leaves(tmp_path):
    whole = [np.arange(12.0).reshape(4, 3), np.zeros((0, 2)), np.array(3), np.ones(4, np.int8)]
    pieces = [
        leaves.Piece(0, (0, 0), whole[0][:3, :2]),
        leaves.Piece(1, (0, 0), whole[1]),
        leaves.Piece(2, (), whole[2]),
        leaves.Piece(3, (0,), whole[3][:2]),
        leaves.Piece(0, (0, 2), whole[0][:, 2:]),
        leaves.Piece(0, (3, 0), whole[0][3:, :2]),
        leaves.Piece(3, (2,), whole[3][2:]),
    ]
    for process, share in enumerate((pieces[:4], pieces[4:])):
        leaves.write_pieces(tmp_path / leaves.states_name(process), Identity.new(), share)
    stored = leaves.read_leaves(tmp_path, whole)
    assert_bitwise_equal(stored, whole)
    assert leaves.first_difference(stored, pieces) is None
    assert leaves.first_difference([*stored[:3], np.zeros(4)], pieces) == 3
    (tmp_path / "states.1.npz").unlink()
    with pytest.raises(ValueError, match="some are missing"):
        leaves.read_leaves(tmp_path, whole)


def test_states_of_other_names_or_shapes_are_refused(tmp_path):
    save(tmp_path, {"a": {"b": jnp.ones(3)}})
    for other in ({"a.b": jnp.ones(3)}, {"a": {"b": jnp.ones(4)}}, {"a": {}}):
        with pytest.raises(ValueError, match="do not fit the config: ") as error:
            restore_states(tmp_path, 1, other)
        assert "\n" not in str(error.value)


def test_the_first_checkpoint_is_restored_and_the_later_ones_are_hashed(tmp_path, monkeypatch):
    restored, hashed = [], []

    def read(folder, shapes):
        restored.append(folder.name)
        return leaves.read_leaves(folder, shapes)

    def sha256(path):
        hashed.append(path.name)
        return files.sha256(path)

    monkeypatch.setattr(checkpoint_writer, "read_leaves", read)
    monkeypatch.setattr(checkpoint_writer, "sha256", sha256)
    save(tmp_path, *[{"a": jnp.full(3, value)} for value in range(3)])
    assert restored == [".1.part"]
    assert hashed.count("states.npz") == 3


@pytest.mark.parametrize("number", [1, 2])
def test_what_does_not_read_back_is_no_checkpoint(number, tmp_path, monkeypatch):
    write = files.write_atomically

    def write_badly(path, content):
        write(path, content)
        if path.name == "states.npz" and path.parent.name == f".{number}.part":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(bytes(data))

    monkeypatch.setattr(files, "write_atomically", write_badly)
    states = [{"a": jnp.arange(1000.0) + value} for value in range(number)]
    with pytest.raises(RunError, match=r"states\.npz does not read back as it was written"):
        save(tmp_path, *states)
    assert checkpoints.list_checkpoints(tmp_path) == [1][: number - 1]


def test_leaves_that_are_exchanged_are_found(tmp_path, monkeypatch):
    def write(path, identity, pieces):
        exchanged = [piece._replace(leaf=1 - piece.leaf) for piece in pieces]
        return leaves.write_pieces(path, identity, exchanged)

    monkeypatch.setattr(checkpoint_writer, "write_pieces", write)
    with pytest.raises(RunError, match=r"the array \['a'\] does not read back"):
        save(tmp_path, {"a": jnp.zeros(3), "b": jnp.ones(3)})


def test_what_a_signal_saves_is_read_when_it_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "sha256", lambda path: pytest.fail("there is no time"))
    save(tmp_path, {"a": jnp.zeros(3)}, verify=False)
    assert not checkpoints.read_manifest(tmp_path, 1)["was_read_back"]
    read = []
    monkeypatch.setattr(checkpoints, "read_pieces", read.append)
    assert find_damage(tmp_path, 1, records=True) is None
    assert [path.name for path in read] == ["states.npz"]
    path = tmp_path / "checkpoints/1/states.npz"
    path.write_bytes(path.read_bytes()[:-1])
    assert find_damage(tmp_path, 1, records=True) == "states.npz has changed since it was written"


@pytest.mark.parametrize(
    "name", ["a[lr=1]", "hidden=[64,64]", r"back\slash", "a*b?", "it's", "-x", "ü 'n\" $HOME;"]
)
def test_a_run_below_any_path_is_saved_read_and_advised(name, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    run = train_and_stop(tmp_path / name / "run")
    code, _, err = call("compare", run)
    assert code == 2
    assert advised(err.strip()) == ["resume", shown(run)]
    code, _, err = call("evaluate", run, "--episodes", 2)
    assert code == 0, err
    code, _, err = call(*advised(resume_command(run)))
    assert code == 0, err
    assert files.read_checked_json(run / "summary.json")["resumed_at"] == 4


def test_a_relative_directory_stays_where_it_was(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run = train("run", **EVERY, hooks=[lambda chunk: os.chdir(tmp_path / "elsewhere")])
    assert run.directory == tmp_path / "run"
    assert not list((tmp_path / "elsewhere").iterdir())
    assert {"6", "4"} == {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert (tmp_path / "run/summary.json").exists()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is no path"),
        ("a\nb", "has a newline or another control character"),
        ("a\x00b", "has a newline or another control character"),
        ("a\x1b[31mb", "has a newline or another control character"),
        ("a\udc80b", "is not UTF-8"),
        ("x/" + "a" * 256, "has a part of more than 255 bytes"),
        ("ü" * 128, "has a part of more than 255 bytes"),
    ],
)
def test_what_is_no_path_is_refused_in_a_line(name, problem, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    for begin in (lambda: train(name), lambda: purerl.resume(name)):
        with pytest.raises(ValueError, match=problem) as error:
            begin()
        str(error.value).encode("ascii")
        assert "\n" not in str(error.value)
    assert call("evaluate", name)[0] == 2
    assert not list(tmp_path.iterdir())


def test_a_directory_is_shown_from_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(as_directory("runs/a")) == "runs/a"
    assert shown(as_directory(tmp_path.parent)) == str(tmp_path.parent)
    assert shown(as_directory("-x")) == "./-x"
    assert resume_command(as_directory("a b")) == "purerl resume 'a b'"


def test_every_leaf_of_a_run_is_described_beside_it(finished):
    manifest = checkpoints.read_manifest(finished, 6)
    spec = RunSpec.from_header(manifest["header"])
    assert manifest["leaves"] == leaves.describe_leaves(spec.state_shapes())
    with np.load(finished / "checkpoints/6/states.npz") as stored:
        assert len(stored) == len(manifest["leaves"]) + 1
