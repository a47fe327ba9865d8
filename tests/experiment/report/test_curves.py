"""One curve over seeds: in figures, for loggers and on the display."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import purerl
from purerl.experiment.report.curves import LastEpisodes
from purerl.experiment.report.statistics import iqm, iqm_interval


def records(rng, num_seeds=6, num_records=40, share=0.6):
    counts = rng.integers(1, 9, (num_seeds, num_records)) * (
        rng.random((num_seeds, num_records)) < share
    )
    values = np.where(counts > 0, rng.normal(100.0, 20.0, counts.shape), np.nan)
    return values, counts


@pytest.mark.parametrize("max_points", [None, 40, 7, 1])
def test_a_point_is_the_mean_of_its_episodes_or_the_last_one_there_was(max_points):
    values, counts = records(np.random.default_rng(0))
    last = np.array([np.nan, 50.0, np.nan, np.nan, 70.0, np.nan])
    curve = purerl.episode_curve(values, counts, last=last, max_points=max_points)
    begin = 0
    known = last.copy()
    for point, end in enumerate(curve.records + 1):
        for seed in range(6):
            episodes = [values[seed, i] for i in range(begin, end) for _ in range(counts[seed, i])]
            if episodes:
                known[seed] = np.mean(episodes)
        np.testing.assert_allclose(curve.seeds[:, point], known)
        defined = known[~np.isnan(known)]
        assert curve.num_seeds[point] == len(defined)
        assert curve.iqm[point] == pytest.approx(float(iqm(defined)))
        begin = end
    assert begin == 40


def test_seeds_with_long_episodes_do_not_drop_out():
    """Five seeds end an episode of 500 steps in every third record, three end short ones always."""
    counts = np.ones((8, 9), int)
    counts[:5] = np.arange(9) % 3 == 0
    values = np.where(counts > 0, np.where(np.arange(8) < 5, 500.0, 20.0)[:, None], np.nan)
    np.testing.assert_array_equal(purerl.episode_curve(values, counts).iqm, [380.0] * 9)


def test_a_bin_weighs_records_by_their_episodes():
    values, counts = np.array([[0.0, 1.0] * 200]), np.array([[3, 1] * 200])
    curve = purerl.episode_curve(values, counts, max_points=200)
    np.testing.assert_array_equal(curve.iqm, np.full(200, 0.25))


def test_what_failed_does_not_count():
    values, counts = np.array([[1.0, 2.0], [5.0, np.nan]]), np.array([[1, 1], [1, 0]])
    curve = purerl.episode_curve(values, counts, alive=np.array([[True, True], [True, False]]))
    np.testing.assert_array_equal(curve.iqm, [3.0, 2.0])
    np.testing.assert_array_equal(curve.num_seeds, [2, 1])


def test_the_interval_is_there_where_every_seed_has_a_number():
    values, counts = records(np.random.default_rng(1), share=0.2)
    curve = purerl.episode_curve(values, counts)
    assert 0 < curve.is_complete.sum() < 40
    interval = curve.interval()
    np.testing.assert_array_equal(np.isnan(interval.low), ~curve.is_complete)
    np.testing.assert_array_equal(interval.low[-1], iqm_interval(curve.seeds[:, -1]).low)


def test_chunks_make_the_curve_of_the_whole():
    values, counts = records(np.random.default_rng(2))
    whole, last, found = purerl.episode_curve(values, counts), LastEpisodes.none(6), []
    for begin in range(0, 40, 8):
        within = slice(begin, begin + 8)
        chunk: Any = {"last": last.episode_return}
        found.append(purerl.episode_curve(values[:, within], counts[:, within], **chunk).iqm)
        names = [field.name for field in dataclasses.fields(purerl.Metrics)]
        last = last.after(purerl.Metrics(**dict.fromkeys(names, values[:, within])))
    np.testing.assert_array_equal(np.concatenate(found), whole.iqm)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (2, 4)), ((2, 0), (2, 0))])
def test_other_shapes_are_refused(shapes):
    values, counts = (np.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"must both be \[seeds, records\]"):
        purerl.episode_curve(values, counts)


def test_figure_loggers_and_display_say_the_same(tmp_path, monkeypatch):
    """Of a run in which seeds end episodes in some records only."""
    import json

    from purerl.experiment.progress import ProgressDisplay
    from purerl.experiment.report.figures import learning_curve

    shown, update = [], ProgressDisplay.update

    def watch(self, *chunk):
        update(self, *chunk)
        shown.append((self.latest, self.status.plain))

    monkeypatch.setattr(ProgressDisplay, "update", watch)
    config = purerl.vpg("CartPole-v1", num_envs=1, rollout_length=32, total_steps=32 * 24)
    how: Any = {"updates_per_chunk": 4, "evaluation_episodes": 0, "progress": False}
    result = purerl.run(config, 5, tmp_path, hooks=[purerl.JsonLines()], **how)
    assert np.any(result.metrics.num_episodes == 0)
    curve = purerl.episode_curve(result.metrics.episode_return, result.metrics.num_episodes)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = [line["episode_return"] for line in lines]
    np.testing.assert_array_equal(np.array(told, float), curve.iqm)
    assert [line["return_seeds"] for line in lines] == curve.num_seeds.tolist()
    for i, (latest, text) in enumerate(shown):
        np.testing.assert_array_equal(latest, curve.seeds[:, 4 * i + 3])
        assert f"seeds {curve.iqm[4 * i + 3]:.1f}" in text
    figure = learning_curve(
        np.arange(24.0), result.metrics.episode_return, result.metrics.num_episodes, title=""
    )
    (line,) = [line for line in figure.axes[0].lines if "IQM" in str(line.get_label())]
    np.testing.assert_array_equal(line.get_ydata(), curve.iqm[curve.is_complete])
    lengths = purerl.episode_curve(result.metrics.episode_length, result.metrics.num_episodes)
    means = [np.nanmean(column) for column in lengths.seeds.T]
    np.testing.assert_allclose([line["episode_length"] for line in lines], means)
