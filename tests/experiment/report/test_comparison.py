"""Runs side by side: figures, names, and what cannot be compared."""

import numpy as np
import pytest
from finished import altered

from purerl.cli.tables import comparison_table
from purerl.experiment.report.comparison import compare_runs
from purerl.experiment.report.figures import comparison


def text_of(table):
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as shown:
        console.print(table)
    return shown.get()


def test_comparison_of_runs(finished, tmp_path):
    other = altered(finished, tmp_path / "ppo", algo="ppo", seed_0=40.0, seed_3=5.0)
    vpg, ppo = compare_runs([finished, other])
    assert vpg.improvement is None
    assert ppo.improvement is not None
    wins = np.mean([(x > y) + 0.5 * (x == y) for x in ppo.run.returns for y in vpg.run.returns])
    assert float(ppo.improvement.value) == pytest.approx(wins)
    assert float(ppo.statistics.mean.value) == pytest.approx(ppo.run.returns.mean())
    assert float(ppo.statistics.median.value) == pytest.approx(np.median(ppo.run.returns))
    assert ppo.solved == np.mean(ppo.run.returns >= 20)
    axes, ends = comparison([vpg, ppo]).axes
    assert axes.get_ylim() == ends.get_ylim()
    assert ends.get_ylabel() == "greedy return"
    assert [label.get_text() for label in ends.get_xticklabels()] == ["vpg", "ppo"]
    shown = text_of(comparison_table([vpg, ppo]))
    assert "greedy return, IQM [95%]" in shown
    assert "seeds at 20 or more" in shown
    assert "failed" not in shown


def test_what_cannot_be_compared_is_refused(finished, tmp_path):
    acrobot = altered(finished, tmp_path / "acrobot", env="Acrobot-v1")
    training = altered(finished, tmp_path / "training", greedy=False)
    for other, line in (
        (acrobot, "CartPole-v1 and Acrobot-v1 cannot be compared"),
        (training, r"are of greedy episodes, those of .*training' the last in training"),
        (finished, "is named twice"),
    ):
        with pytest.raises(ValueError, match=line):
            compare_runs([finished, other])


def test_returns_in_training_are_called_that(finished, tmp_path):
    alone = compare_runs([altered(finished, tmp_path / "training", greedy=False)])
    assert "last return in training, IQM" in text_of(comparison_table(alone))
    assert comparison(alone).axes[1].get_ylabel() == "last return in training"


def test_failed_seeds_are_named_and_enter_no_mean(finished, tmp_path):
    sick = altered(finished, tmp_path / "vpg", seed_0=None, seed_1=None, seed_3=None)
    ours, theirs = compare_runs([sick, finished])
    assert (ours.name, theirs.name) == (f"{tmp_path.name}/vpg", f"{finished.parent.name}/vpg")
    assert float(ours.statistics.mean.value) == pytest.approx(ours.run.returns[2])
    assert ours.solved == (ours.run.returns[2] >= 20) / 4
    (line,) = [
        x for x in text_of(comparison_table([ours, theirs])).splitlines() if "failed seeds" in x
    ]
    assert line.split() == ["failed", "seeds", "0-1,", "3", "none"]
