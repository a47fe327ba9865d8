"""Finished runs, read back: what is read, what is refused, and files for other programs."""

import csv
import shutil
from typing import Any

import numpy as np
import pytest
from finished import SMALL, altered
from interruptions import Interrupted, interrupt_after
from probes import Sick
from small import EPISODES

import purerl
from purerl.experiment.report.comparison import shortest_names
from purerl.experiment.report.exports import write_scores, write_table
from purerl.experiment.report.format import format_ranges
from purerl.experiment.store import files
from purerl.experiment.store.files import read_checked_json, write_checked_json
from purerl.experiment.store.finished_run import read_run


@pytest.fixture
def copy(finished, tmp_path):
    """A finished run that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "copy")


def refused(directory):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_run(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_reads_back_as_it_was(copy):
    again = purerl.resume(copy, progress=False)
    saved = read_run(copy)
    assert (saved.env, saved.algo, saved.seed_ids) == ("CartPole-v1", "vpg", (0, 1, 2, 3))
    assert saved.greedy
    assert saved.failed_seeds == saved.seeds_without_episode == ()
    np.testing.assert_allclose(saved.returns, again.final_returns())
    np.testing.assert_array_equal(saved.arrays["entropy"], again.metrics.entropy)


def test_seeds_without_a_return_are_named(finished, tmp_path):
    saved = read_run(altered(finished, tmp_path / "sick", seed_1=None, seed_3=None))
    assert saved.failed_seeds == (1, 3)
    assert saved.seeds_without_episode == ()
    assert np.isnan(saved.returns[[1, 3]]).all()
    saved.returns[0] = np.nan
    assert saved.seeds_without_episode == (0,)


def test_a_result_from_before_a_longer_budget_is_not_read(copy, monkeypatch):
    result = {name: (copy / name).read_bytes() for name in ("summary.json", "metrics.npz")}
    interrupt_after(8, monkeypatch)
    warned = pytest.warns(UserWarning, match="the schedule now runs over 12 updates")
    with pytest.raises(Interrupted), warned:
        purerl.resume(copy, total_steps=4 * 8 * 12, progress=False)
    for name, content in result.items():
        (copy / name).write_bytes(content)
    assert f"is not finished; go on with it: purerl resume {copy}" in refused(copy)


def test_what_is_no_finished_run_is_refused_for_what_it_is(copy, tmp_path):
    assert "is not there" in refused(tmp_path / "nowhere")
    assert "holds no run" in refused(tmp_path)
    (copy / "summary.json").unlink()
    assert "is not finished; go on with it: purerl resume" in refused(copy)
    shutil.rmtree(copy / "checkpoints")
    (copy / "config.json").write_text("{}")
    assert "config.json' is damaged or not purerl's, and no checkpoint has" in refused(copy)


@pytest.mark.slow
def test_a_sweep_is_no_run(tmp_path):
    config = purerl.preset("CartPole-v1", "vpg", **SMALL)
    sweep = purerl.sweep(config, discount=[0.9, 0.99])
    purerl.run_sweep(sweep, 1, tmp_path, evaluation_episodes=0, progress=False)
    assert "holds a sweep" in refused(tmp_path)


def test_damaged_results_are_read_from_the_records_or_refused(copy):
    whole = read_run(copy).arrays
    path = copy / "metrics.npz"
    sound = path.read_bytes()
    flag, method = (bytearray(sound) for _ in range(2))
    entry = sound.index(b"PK\x01\x02")  # of the first file in the archive's directory
    flag[entry + 8] |= 1  # it is encrypted
    method[entry + 10] = 99  # in a way that nobody knows
    number = bytearray(sound)
    number[sound.index(b"\x93NUMPY") + 128] ^= 255  # behind the header of the first array
    for data in (b"", b"nothing", sound[:-40], sound[: len(sound) // 2], flag, method, number):
        path.write_bytes(bytes(data))
        with pytest.warns(UserWarning, match=r"metrics.npz is missing or damaged; the records"):
            np.testing.assert_array_equal(read_run(copy).arrays["entropy"], whole["entropy"])
    records = shutil.move(copy / "records", copy / "moved")
    assert f"metrics.npz' is damaged; write it again: purerl resume {copy}" in refused(copy)
    np.savez(path, something=np.zeros(3))
    assert "metrics.npz' is damaged" in refused(copy)
    shutil.move(records, copy / "records")
    path.write_bytes(sound)
    (copy / "summary.json").write_text('{"seeds": [')
    assert "summary.json' is damaged" in refused(copy)


STRANGE_SUMMARIES: dict[str, Any] = {
    "seeds that are no list": {"seeds": 7},
    "seeds without returns": {"seeds": [{}] * 4},
    "a return that is text": {
        "seeds": [{"episode_return": "9", "failed_at": -1, "cause": None}] * 4
    },
    "a cause that is a list": {"seeds": [{"episode_return": 9, "failed_at": -1, "cause": [1]}] * 4},
    "fewer seeds": {"seeds": [{"episode_return": 9.0, "failed_at": -1, "cause": None}]},
    "updates that are text": {"updates": "all"},
    "times that are none": {"times": None},
    "an answer that is text": {"greedy": "yes"},
}


@pytest.mark.parametrize("strange", STRANGE_SUMMARIES.values(), ids=list(STRANGE_SUMMARIES))
def test_a_summary_that_no_run_wrote_is_refused(strange, copy, call, tmp_path):
    summary = read_checked_json(copy / files.SUMMARY)
    write_checked_json(copy / files.SUMMARY, summary | strange)
    assert "damaged" in refused(copy)
    code, _, err = call("compare", copy, "--output", tmp_path / "figure.png")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("entropy", np.zeros((4, 2))),
        ("entropy", np.full((4, 6), "high")),
        ("seed_ids", np.zeros(())),
        ("failed_at", np.zeros(3, int)),
        ("record_updates", np.zeros(0, int)),
    ],
)
def test_arrays_that_no_run_wrote_are_those_of_the_records(name, array, copy):
    entropy = read_run(copy).arrays["entropy"]
    files.write_arrays(
        copy / files.METRICS, files.read_arrays(copy / files.METRICS) | {name: array}
    )
    with pytest.warns(UserWarning, match="the records are read"):
        np.testing.assert_array_equal(read_run(copy).arrays["entropy"], entropy)


def test_ids_are_all_named_in_ranges():
    assert format_ranges([]) == ""
    assert format_ranges([4]) == "4"
    assert format_ranges([0, 1, 2, 3, 7, 9, 10]) == "0-3, 7, 9-10"


def test_names_are_the_shortest_paths_that_differ(tmp_path):
    paths = [tmp_path / each for each in ("a/x", "b/x", "b/y", "c/b/z")]
    assert shortest_names(paths) == ["a/x", "b/x", "y", "z"]
    assert shortest_names([tmp_path / "a", tmp_path / "c/a"]) == [f"{tmp_path.name}/a", "c/a"]
    with pytest.raises(ValueError, match="is named twice"):
        shortest_names([tmp_path / "a", tmp_path / "b/../a"])


def read_rows(path):
    if path.suffix == ".parquet":
        return pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    with open(path, newline="") as file:
        rows: Any = list(csv.DictReader(file))
    words = ("run", "env", "algo")
    return [
        {k: float(v) if v else np.nan for k, v in row.items() if k not in words} for row in rows
    ]


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_the_table_has_a_row_for_each_record_of_each_seed(name, finished, tmp_path):
    run = read_run(finished)
    write_table(run, tmp_path / name)
    rows = read_rows(tmp_path / name)
    assert len(rows) == 4 * 6
    for row in rows:
        seed, record = int(row["seed"]), int(row["updates"]) - 1
        assert row["env_steps"] == row["updates"] * 32
        assert row["failed_at"] == -1
        assert row.get("run", run.identity.run) == run.identity.run  # text, which a .csv leaves out
        assert row["entropy"] == pytest.approx(float(run.arrays["entropy"][seed, record]))
        evaluated = record in (1, 3, 5)
        assert np.isfinite(row["greedy_return"]) == evaluated
        if evaluated:
            played = run.arrays["sampled_episode_return"][seed, record // 2].mean()
            assert row["sampled_return"] == pytest.approx(float(played))


def test_the_table_has_the_metrics_alone_and_says_when_a_seed_failed(finished, tmp_path):
    run = read_run(altered(finished, tmp_path / "sick", seed_1=None))
    # As many evaluations as records: `[seeds, evaluations]` is not taken for `[seeds, records]`.
    run.arrays["greedy_num_unfinished"] = np.zeros((4, 6), int)
    write_table(run, tmp_path / "table.csv")
    rows = read_rows(tmp_path / "table.csv")
    assert "greedy_num_unfinished" not in rows[0]
    assert {(int(row["seed"]), row["failed_at"]) for row in rows} == {
        (0, -1),
        (1, 3),
        (2, -1),
        (3, -1),
    }


def test_a_table_of_another_kind_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.csv or \.parquet"):
        write_table(read_run(finished), tmp_path / "table.xlsx")


def test_scores_are_as_rliable_takes_them(finished, tmp_path):
    acrobot = altered(finished, tmp_path / "acrobot", env="Acrobot-v1", seed_2=-500.0)
    both = [read_run(finished), read_run(acrobot)]
    write_scores(both, tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz") as scores:
        assert scores["envs"].tolist() == ["Acrobot-v1", "CartPole-v1"]
        assert scores["runs"].tolist() == [[run.identity.run for run in reversed(both)]]
        assert scores["vpg"].shape == (4, 2)
        assert scores["vpg"][2, 0] == -500
        np.testing.assert_allclose(scores["vpg"][:, 1], both[0].returns)
    ppo = read_run(altered(finished, tmp_path / "ppo", algo="ppo"))
    for runs, line in (
        ([*both, ppo], "scores of ppo lack Acrobot-v1"),
        ([both[0], both[0]], "need one run for each environment"),
        ([both[0], both[1]._replace(greedy=False)], "name runs of one kind"),
    ):
        with pytest.raises(ValueError, match=line):
            write_scores(runs, tmp_path / "scores.npz")


def test_scores_that_are_missing_are_warned_of(finished, tmp_path):
    run = read_run(altered(finished, tmp_path / "sick", seed_0=None, seed_1=None, seed_3=None))
    with pytest.warns(UserWarning, match=r"sick: seeds without a return: 0-1, 3; their"):
        write_scores([run], tmp_path / "scores.npz")


def test_stop_on_nan_ends_the_run_and_names_the_seeds(tmp_path):
    config = purerl.vpg(Sick(), **SMALL)
    how: Any = {"stop_on_nan": True, "evaluation_episodes": EPISODES, "progress": False}
    with pytest.raises(purerl.RunError, match=r"that stopped being finite: [0-9, ]+; saved"):
        purerl.run(config, 8, tmp_path, **how)
    assert "is not finished" in refused(tmp_path)
    again = purerl.resume(tmp_path, config, progress=False)
    assert again.resumed_at > 0
    assert again.failed_seeds == read_run(tmp_path).failed_seeds != ()
