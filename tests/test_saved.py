"""Finished runs, read back: comparisons, tables, scores, evaluations and pictures."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import purerl as command_line
from test_run import Sick

import purerl
from purerl.experiment.play import evaluate_run, render_run
from purerl.experiment.plot import comparison, histogram
from purerl.experiment.saved import compare_runs, read_run, write_scores, write_table

SMALL: Any = {"num_envs": 4, "rollout_length": 8, "total_steps": 4 * 8 * 6, "hidden": (8,)}


def train(directory, algo="vpg", env="CartPole-v1", seeds=4, **options: Any):
    config = purerl.preset(env, algo, **SMALL)
    how: Any = {"evaluation_episodes": 2, "progress": False, "target_return": 20.0}
    return purerl.run(config, seeds, directory, **(how | options))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    train(root / "vpg", evaluate_every=2)
    train(root / "ppo", "ppo", seeds=5)
    return root


def test_a_run_reads_back_as_it_was(runs):
    again = purerl.resume(runs / "vpg", progress=False)
    saved = read_run(runs / "vpg")
    assert (saved.env, saved.algo, saved.seed_ids) == ("CartPole-v1", "vpg", (0, 1, 2, 3))
    np.testing.assert_allclose(saved.returns, again.final_returns())
    np.testing.assert_array_equal(saved.arrays["entropy"], again.metrics.entropy)


def test_an_unfinished_run_is_not_read(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run; finish it: purerl resume"):
        read_run(tmp_path)


def test_comparison_of_runs(runs):
    vpg, ppo = compare_runs([runs / "vpg", runs / "ppo"])
    assert vpg.improvement is None
    assert ppo.improvement is not None
    wins = np.mean([(x > y) + 0.5 * (x == y) for x in ppo.run.returns for y in vpg.run.returns])
    assert float(ppo.improvement.value) == pytest.approx(wins)
    assert float(ppo.mean.value) == pytest.approx(ppo.run.returns.mean())
    assert float(ppo.median.value) == pytest.approx(np.median(ppo.run.returns))
    assert ppo.solved == np.mean(ppo.run.returns >= 20)
    assert len(comparison([vpg, ppo]).axes) == 2


def test_runs_of_several_environments_are_not_compared(runs, tmp_path):
    train(tmp_path, "vpg", "Acrobot-v1", evaluation_episodes=0)
    with pytest.raises(ValueError, match="CartPole-v1 and Acrobot-v1 cannot be compared"):
        compare_runs([runs / "vpg", tmp_path])


def test_failed_seeds_are_counted_and_enter_no_mean(tmp_path):
    config = purerl.vpg(Sick(), **SMALL)
    result = purerl.run(config, 8, tmp_path, progress=False)
    assert 0 < len(result.failed_seeds) < 8
    (each,) = compare_runs([tmp_path])
    assert each.num_failed == len(result.failed_seeds)
    assert len(each.run.known) == 8 - each.num_failed
    assert np.isfinite(each.mean.value)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_the_table_has_a_row_for_each_record_of_each_seed(name, runs, tmp_path):
    run = read_run(runs / "vpg")
    write_table(run, tmp_path / name)
    if name.endswith(".csv"):
        with open(tmp_path / name, newline="") as file:
            rows: Any = list(csv.DictReader(file))
        rows = [
            {k: float(v) if v else np.nan for k, v in row.items() if k not in ("env", "algo")}
            for row in rows
        ]
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(tmp_path / name).to_pylist()
    assert len(rows) == 4 * 6
    for row in rows:
        seed, record = int(row["seed"]), int(row["updates"]) - 1
        assert row["env_steps"] == row["updates"] * 32
        assert row["entropy"] == pytest.approx(float(run.arrays["entropy"][seed, record]))
        evaluated = record in (1, 3, 5)
        assert np.isfinite(row["greedy_return"]) == evaluated
        if evaluated:
            played = run.arrays["sampled_episode_return"][seed, record // 2].mean()
            assert row["sampled_return"] == pytest.approx(float(played))


def test_a_table_of_another_kind_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.csv or \.parquet"):
        write_table(read_run(runs / "vpg"), tmp_path / "table.xlsx")


def test_scores_are_as_rliable_takes_them(runs, tmp_path):
    train(tmp_path / "acrobot", "vpg", "Acrobot-v1")
    both = [read_run(runs / "vpg"), read_run(tmp_path / "acrobot")]
    write_scores(both, tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz") as scores:
        assert scores["envs"].tolist() == ["Acrobot-v1", "CartPole-v1"]
        assert scores["vpg"].shape == (4, 2)
        np.testing.assert_allclose(scores["vpg"][:, 1], both[0].returns)
    with pytest.raises(ValueError, match="scores of ppo lack Acrobot-v1"):
        write_scores([*both, read_run(runs / "ppo")], tmp_path / "scores.npz")
    with pytest.raises(ValueError, match="need one run for each environment"):
        write_scores([both[0], both[0]], tmp_path / "scores.npz")


def test_evaluation_of_a_saved_run(runs):
    played = evaluate_run(runs / "vpg", episodes=300, seeds=[2, 0])
    assert played.evaluation.episode_return.shape == (2, 512)
    assert played.updates == 6
    policy = purerl.load_policy(runs / "vpg", 2)
    config = played.plan.config
    import jax

    number = jax.random.fold_in(purerl.seed_keys(0, [2])[0], 7)
    greedy_key, _ = jax.random.split(number)
    alone = purerl.evaluate(greedy_key, policy, config, num_episodes=256)
    np.testing.assert_array_equal(
        np.asarray(played.evaluation.episode_return)[0, :256], alone.episode_return
    )
    sampled = evaluate_run(runs / "vpg", episodes=10, sampled=True)
    assert sampled.evaluation.episode_return.shape == (4, 10)
    with pytest.raises(ValueError, match=r"seeds = \[9\] are not in this run"):
        evaluate_run(runs / "vpg", seeds=[9])


def test_the_blocks_of_an_evaluation_differ(runs):
    returns = np.asarray(evaluate_run(runs / "vpg", episodes=512).evaluation.episode_return)
    assert np.any(returns[:, :256] != returns[:, 256:])


@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1",
        "BernoulliBandit-misc",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("Catch-bsuite", "Breakout-MinAtar", "Pong-misc")
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_episode_becomes_a_gif(env, tmp_path):
    train(tmp_path, "ppo", env, seeds=1, evaluation_episodes=0)
    path, total, length = render_run(tmp_path, 0, max_steps=12)
    assert path == tmp_path / "seed_0.gif"
    assert 0 < length <= 12
    assert np.isfinite(total)
    opened: Any = Image.open(path)
    with opened as gif:
        assert 1 <= gif.n_frames <= length
        gif.seek(0)
        assert np.asarray(gif.convert("RGB")).std() > 0


def test_histogram_of_equal_and_of_missing_returns():
    figure = histogram(np.array([500.0, 500.0, np.nan]), title="", xlabel="", target_return=475.0)
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 2  # type: ignore
    histogram(np.array([np.nan]), title="", xlabel="", target_return=None)


@pytest.mark.slow
def test_the_command_line_on_runs(runs, tmp_path):
    vpg, ppo = str(runs / "vpg"), str(runs / "ppo")
    done = command_line("compare", vpg, ppo, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "P(beats first)" in done.stdout
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    done = command_line("evaluate", vpg, "--episodes", "8", "--sampled", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sampled return, iqm over seeds" in done.stdout
    written = json.loads((Path(vpg) / "evaluation_sampled.json").read_text())
    assert written["episodes"] == 8
    assert len(written["seeds"]) == 4
    for args, said in (
        (("export", vpg), "export what?"),
        (("export", vpg, ppo, "--seed", "1"), "give one for --seed"),
        (("render", vpg, "--seed", "77"), "seed = 77 is not in this run"),
        (("compare", str(tmp_path)), "holds no finished run"),
        (("resume", str(tmp_path)), "holds no run"),
        (("evaluate", str(tmp_path)), "holds no checkpoint"),
        (("train", "--memory-limit", "much"), "write 500MB or 1.5GB"),
    ):
        done = command_line(*args, cwd=tmp_path)
        assert done.returncode == 2, (args, done.stderr)
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_stop_on_nan_ends_the_run_and_names_the_seeds(tmp_path):
    config = purerl.vpg(Sick(), **SMALL)
    with pytest.raises(purerl.RunError, match=r"that stopped being finite: [0-9, ]+; saved"):
        purerl.run(config, 8, tmp_path, stop_on_nan=True, progress=False)
    again = purerl.resume(tmp_path, config, progress=False)
    assert again.resumed_at > 0
    assert again.failed_seeds
