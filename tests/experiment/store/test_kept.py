"""A run that was saved once is read by every version of its format."""

import csv
import shutil

import jax
import numpy as np
import pytest
from kept import KEPT

import purerl
from purerl.experiment.play.run_evaluation import evaluate_run
from purerl.experiment.store import files
from purerl.experiment.store.files import read_checked_json, write_checked_json
from purerl.experiment.store.finished_run import read_run
from purerl.experiment.store.identity import FIELDS, FORMAT, identity_of


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(KEPT, tmp_path / "run")


def test_the_kept_run_is_of_this_format():
    """Where the format moves, it is made anew: `python tests/support/kept.py`."""
    for name in ("config.json", "summary.json", "metrics.npz", "checkpoints/6/manifest.json"):
        identity = identity_of(KEPT / name)
        assert identity is not None, name
        assert identity.format == FORMAT, name


def test_the_kept_run_is_loaded_evaluated_compared_and_exported(run, tmp_path, call):
    loaded = purerl.resume(run, progress=False)
    saved = read_run(run)
    assert (loaded.seed_ids, loaded.updates) == (saved.seed_ids, 6) == ((0, 1), 6)
    np.testing.assert_array_equal(loaded.metrics.entropy, saved.arrays["entropy"])
    np.testing.assert_allclose(saved.returns, loaded.final_returns())
    described = read_checked_json(run / "checkpoints/6/manifest.json")["leaves"]
    names = [name for name, *_ in described]
    leaves = dict(zip(names, jax.tree.leaves(loaded.states), strict=True))
    stored = files.read_arrays(run / "checkpoints/6/states.npz")
    assert np.asarray(leaves[".step"]).tolist() == [6, 6]
    assert len(stored) == len(leaves) + 1
    assert evaluate_run(run, episodes=2).updates == 6
    assert purerl.load_policy(run, 1)(np.ones(4, np.float32)).logits.shape == (2,)
    assert call("compare", run, "--output", tmp_path / "a.png")[0] == 0
    assert call("export", run, "--metrics", tmp_path / "a.csv")[0] == 0
    with open(tmp_path / "a.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert {row["run"] for row in rows} == {saved.identity.run}
    assert len(rows) == 2 * 6


@pytest.mark.filterwarnings("ignore:the schedule now runs", "ignore:not the same as before")
def test_the_kept_run_goes_on(run):
    """On another machine or with other versions too, where that is asked for."""
    longer = purerl.resume(run, total_steps=4 * 8 * 8, force=True, progress=False)
    assert (longer.resumed_at, longer.updates) == (6, 8)
    assert longer.identity is not None
    assert longer.identity.resumptions == 1


@pytest.mark.parametrize(
    ("name", "command"),
    [("config.json", "resume"), ("config.json", "evaluate"), ("summary.json", "compare")],
)
@pytest.mark.parametrize("saved", [FORMAT - 1, FORMAT + 1, None])
def test_another_format_is_refused_in_a_line_that_names_both(name, command, saved, run, call):
    content = read_checked_json(run / name)
    del content["format"]
    write_checked_json(run / name, content | ({} if saved is None else {"format": saved}))
    code, _, err = call(command, run)
    assert (code, err.count("\n")) == (2, 1), err
    assert f"in format {saved or 1}; this version reads format {FORMAT}" in err


def test_what_is_written_has_the_fields_that_are_read():
    """A new field gets its place, and a default, in `FIELDS`."""
    header = read_checked_json(KEPT / "config.json")
    for kind, content in (
        ("header", header),
        ("config", header["config"]),
        ("summary", read_checked_json(KEPT / "summary.json")),
        ("checkpoint", read_checked_json(KEPT / "checkpoints/6/manifest.json")),
    ):
        assert content.keys() - {"sha256"} <= FIELDS[kind].keys()
        needed = {name for name, field in FIELDS[kind].items() if field.is_required}
        assert needed <= content.keys()
