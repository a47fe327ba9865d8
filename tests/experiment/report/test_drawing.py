"""A run is finished whatever its figures do."""

import errno
import shlex
import sys

import matplotlib
import numpy as np
import pytest
from finished import train
from matplotlib.figure import Figure

import purerl
from purerl.experiment.report import figures
from purerl.experiment.store.finished_run import read_run


def full(self, file, **options):
    file.write(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(monkeypatch):
    monkeypatch.delitem(sys.modules, "purerl.experiment.report.figures")
    monkeypatch.delattr("purerl.experiment.report.figures")


FAULTS = {
    "matplotlib is missing": (
        lambda patch: (broken(patch), patch.setitem(sys.modules, "matplotlib", None)),
        "ModuleNotFoundError",
    ),
    "the disk is full": (lambda patch: patch.setattr(Figure, "savefig", full), "No space left"),
    "matplotlib is broken": (
        lambda patch: patch.setattr(figures, "Figure", lambda **_: 1 / 0),
        "ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize(("fail", "reason"), FAULTS.values(), ids=list(FAULTS))
def test_a_figure_that_fails_is_a_warning_and_the_advice_draws_it(
    fail, reason, tmp_path, monkeypatch, call
):
    directory = tmp_path / "a run"
    purerl.make_env("CartPole-v1")  # gymnax imports matplotlib, or what stands in for it
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.warns(UserWarning, match="is not drawn") as told:
            result = train(directory)
    lines = [str(each.message) for each in told]
    assert len(lines) == 2
    for name, line in zip(("learning_curve.png", "returns.png"), lines, strict=True):
        assert line.startswith(f"{directory / name} is not drawn: ")
        assert reason in line
        assert "\n" not in line
        assert not (directory / name).exists()
        assert not (directory / f"{name}.part").exists()
    np.testing.assert_array_equal(read_run(directory).returns, result.final_returns())
    advice = lines[0].split("to draw it later: purerl ")[1].rstrip(".")
    code, _, err = call(*shlex.split(advice))
    assert (code, err.count("warning")) == (0, 0), err
    assert (directory / "learning_curve.png").exists()
    assert (directory / "returns.png").exists()


def test_what_a_run_draws_by_itself_is_not_in_the_users_style(tmp_path, monkeypatch):
    seen = []
    save = figures.save_figure

    def look(figure, path, *identities):
        seen.append(matplotlib.rcParams["lines.linewidth"])
        save(figure, path, *identities)

    monkeypatch.setattr(figures, "save_figure", look)
    with matplotlib.rc_context({"lines.linewidth": 17.0, "text.usetex": True}):
        result = train(tmp_path)
    with matplotlib.rc_context({"lines.linewidth": 17.0}):
        result.plot()
    assert seen == [1.5, 1.5, 17.0]


def test_a_sweep_is_finished_whatever_its_figure_does(tmp_path, monkeypatch):
    from small import EPISODES, SIZES

    monkeypatch.setattr(Figure, "savefig", full)
    sweep = purerl.sweep(purerl.vpg("CartPole-v1", **SIZES), discount=[0.9, 0.99])
    how = {"evaluation_episodes": EPISODES, "progress": False}
    with pytest.warns(
        UserWarning, match=r"sweep.png is not drawn: OSError: .*; the ranking is wri"
    ):
        purerl.run_sweep(sweep, 2, tmp_path / "sweep", **how)
    assert (tmp_path / "sweep/sweep.json").exists()
