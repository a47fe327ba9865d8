"""Runs side by side: figures, names, and what cannot be compared."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finished import altered, train

import purerl
from purerl.cli.tables import comparison_table
from purerl.experiment.play.run_evaluation import evaluate_run
from purerl.experiment.report.comparison import compare_runs
from purerl.experiment.report.figures import comparison
from purerl.experiment.store.files import read_checked_json


def text_of(table):
    from rich.console import Console

    console = Console(width=200)
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
        (acrobot, "acrobot' is unlike .*: CartPole-v1 and Acrobot-v1; .*use allow_different=True"),
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
    wins = (ours.run.returns[2] > theirs.run.returns) + 0.5 * (
        ours.run.returns[2] == theirs.run.returns
    )
    assert theirs.improvement is not None  # three of our four seeds lose to each of theirs
    assert float(theirs.improvement.value) == pytest.approx(1 - wins.mean() / 4)
    assert ", 3 of 4 failed" in text_of(comparison_table([ours, theirs]))


def unlike(finished, tmp_path, **how):
    other = altered(finished, tmp_path / "other", algo="ppo", **how)
    with pytest.raises(ValueError, match="is unlike") as told:
        compare_runs([finished, other])
    assert "\n" not in str(told.value)
    compared = compare_runs([finished, other], allow_different=True)
    title = " ".join(text_of(comparison_table(compared)).split())
    assert title.startswith("CartPole-v1; unlike vpg: other (")
    assert "unlike runs" in comparison(compared).axes[0].get_title(loc="left")
    return title


def test_other_parameters_are_unlike(finished, tmp_path):
    parameters = read_checked_json(finished / "config.json")["config"]["env_params"]
    changed = {"env_params": parameters | {"gravity": 4.9}}
    assert "env_params.gravity: 9.8 and 4.9" in unlike(finished, tmp_path, config=changed)


def test_another_number_of_episodes_is_unlike(finished, tmp_path):
    line = unlike(finished, tmp_path, header={"evaluation_episodes": 64})
    assert "evaluation_episodes: 2 and 64" in line


def test_another_budget_is_unlike_but_not_what_rounds_it_up(finished, tmp_path):
    assert "env steps: 192 and 1.92 k" in unlike(finished, tmp_path, config={"num_envs": 40})
    rounded = altered(finished, tmp_path / "rounded", config={"rollout_length": 9})
    first, second = compare_runs([finished, rounded])  # 192 steps, and 216 in updates of 36
    assert second.differences == ()
    shown = text_of(comparison_table([first, second])).splitlines()
    (line,) = [line for line in shown if "env steps of a seed" in line]
    assert line.split()[-2:] == ["192", "216"]


@dataclasses.dataclass(frozen=True)
class Shaped:
    """CartPole with other rewards, under the name of what is inside."""

    env: Any
    bonus: float = 0.5
    tells: bool = True

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, key, params):
        obs, state = self.env.reset(key, params)
        return obs, (state, jnp.zeros(()))

    def step(self, key, state, action, params):
        obs, inner, reward, terminated, truncated, info = self.env.step(
            key, state[0], action, params
        )
        total = state[1] + reward
        if self.tells:
            info = info | {"episode_return": total}
        state = (inner, jnp.where(terminated | truncated, 0.0, total))
        return obs, state, reward + self.bonus, terminated, truncated, info


def test_a_wrapper_under_the_inner_name_is_unlike(finished, tmp_path):
    directory = tmp_path / "shaped"
    train(directory, env=Shaped(purerl.make_env("CartPole-v1")[0]))
    with pytest.raises(ValueError, match=r"is unlike .*: env"):
        compare_runs([finished, directory])


@pytest.mark.parametrize("tells", [False, True])
def test_an_environment_may_report_its_own_return(tells):
    """What is logged and evaluated is then that, and else the sum of what it gives."""
    env, sizes = purerl.make_env("CartPole-v1")[0], {"hidden": (8,), "total_steps": 4 * 64 * 3}
    shaped: Any = Shaped(env, tells=tells)
    config = purerl.vpg(shaped, num_envs=4, rollout_length=64, **sizes)
    state, metrics = jax.jit(purerl.train)(jax.random.key(0), config)
    played = purerl.evaluate(
        jax.random.key(1), state.learner.policy, config, num_episodes=3, max_steps=100
    )
    scale = 1.0 if tells else 1.5
    assert np.isfinite(metrics.episode_return).all()
    np.testing.assert_allclose(metrics.episode_return, scale * metrics.episode_length, rtol=1e-6)
    np.testing.assert_allclose(played.episode_return, scale * played.episode_length, rtol=1e-6)


def test_unfinished_episodes_of_seeds_that_failed_do_not_count(tmp_path):
    result = train(tmp_path / "run")
    assert result.evaluations is not None
    unfinished = np.array([[3], [1], [0], [0]])
    greedy = result.evaluations.greedy
    greedy = eqx.tree_at(lambda greedy: greedy.num_unfinished, greedy, unfinished)
    told = dataclasses.replace(result, evaluations=result.evaluations._replace(greedy=greedy))
    assert told.summary().num_unfinished == 4
    failed_at = np.array([2, -1, -1, -1], np.int32)
    states = eqx.tree_at(lambda states: states.failed_at, result.states, failed_at)
    assert dataclasses.replace(told, states=states).summary().num_unfinished == 1
    evaluation = evaluate_run(tmp_path / "run", episodes=2)
    one = evaluation.evaluation
    one = eqx.tree_at(lambda one: one.num_unfinished, one, unfinished[:, 0])
    failed = np.array([True, False, False, False])
    assert evaluation._replace(evaluation=one, failed=failed).num_unfinished == 1


def test_another_return_than_one_number_is_refused():
    class Pair(Shaped):
        def step(self, *args):
            *rest, info = super().step(*args)
            return *rest, info | {"episode_return": jnp.zeros(2)}

    env: Any = Pair(purerl.make_env("CartPole-v1")[0])
    with pytest.raises(ValueError, match=r"info\['episode_return'\] is float32\[2\]; put one"):
        purerl.vpg(env, total_steps=1000)
