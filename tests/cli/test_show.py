"""`purerl show`, and settings from files and runs."""

import tomllib

import pytest
from commands import run_purerl
from small import OPTIONS

import purerl
from purerl.cli import arguments as cli
from purerl.cli.main import main
from purerl.cli.words import whole_number


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def shown(out):
    """The rows of both tables: label, and the rest as it is there."""
    rows = (line.strip(" │").replace("│", "  ").split(None, 1) for line in out.splitlines())
    return {row[0]: " ".join(row[1].split()) for row in rows if len(row) == 2}


def test_every_setting_is_shown_with_where_it_comes_from(call):
    code, out, err = call("show", "--env", "Pendulum-v1", "--algo", "ppo", "--num-envs", 64)
    assert code == 0, err
    rows = shown(out)
    assert rows["num_envs"] == "64 given"
    assert rows["discount"] == "0.98 preset"
    assert rows["log_every"] == "1 default"
    for line in (
        "245 of 8,192 env steps",
        "2,007,040",
        "2,048",
        "20 an update, 4,900 in all",
        "4,482",  # 3 * 64 + 64 + 64 * 64 + 64 + 64 + 1, and a deviation
        "memory of 64 seeds",
    ):
        assert line in out, line


def test_memory_is_planned_where_asked_for(call):
    small = ["--num-envs", 4, "--rollout-length", 8, "--hidden", 8, "--seeds", 4]
    rows = [
        next(line for line in call("show", *small, *more)[1].splitlines() if "memory of" in line)
        for more in ([], ["--memory"])
    ]
    assert "at least" in rows[0]
    assert "planned on each device" in rows[1]


def test_what_reinforce_drops_is_shown(call):
    _, out, _ = call("show", "--algo", "reinforce", "--rollout-length", 100, "--lookahead", 26)
    assert "at most 25%" in out


@pytest.mark.parametrize(
    "args",
    [
        ["--env", "Pendulum-v1", "--algo", "ppo", "--squash", "--hidden", 8, 16],
        ["--algo", "reinforce", "--env-params", "gravity=12", "max_steps_in_episode=200"],
        ["--algo", "a2c", "--schedule", "--total-steps", "1e6", "--normalize-obs"],
        ["--algo", "ppo", "--target-kl", 0.03, "--clip-value"],
    ],
)
def test_what_is_written_is_read_as_the_same_config(args, call, tmp_path):
    code, _, err = call("show", *args, "--toml", "agent.toml")
    assert code == 0, err
    code, _, err = call("show", "--config", "agent.toml", "--toml", "again.toml")
    assert code == 0, err
    read = [tomllib.loads((tmp_path / f"{name}.toml").read_text()) for name in ("agent", "again")]
    assert read[0] == read[1]


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(call, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'algo = "ppo"\ntotal_steps = 1e5\nnum_envs = 4\nhidden = [8]\n[env_params]\ngravity = 9\n'
    )
    code, out, err = call("show", "--config", "mine.toml", "--num-envs", 32)
    assert code == 0, err
    rows = shown(out)
    assert rows["num_envs"] == "32 given"
    assert rows["total_steps"] == "100000 mine.toml"
    assert rows["env_params"] == "gravity: 9 mine.toml"
    assert rows["policy_learning_rate"] == "0.0007 preset"
    assert "CartPole-v1 · ppo" in out


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("num_env = 3", "num_env is not a setting; did you mean num_envs"),
        ("num_envs = x", "config = 'mine.toml' cannot be read as TOML: Invalid value (at line 1"),
        ("num_envs = 2.5", "num_envs = 2.5 must be a whole number of at least 1"),
        ("hidden = 64", "hidden = 64 must be widths"),
        ("algo = 3", "algo = 3 must be a name"),
        ('algo = "dqn"', "algo = 'dqn' is not known"),
        ('algo = "vpg"\ngae_lambda = 0.9', "gae_lambda = 0.9 has no effect"),
        ("schedule = 'linear'", "schedule = 'linear' must be shapes by name"),
    ],
)
def test_a_file_that_says_something_wrong_is_refused_in_one_line(text, line, call, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    code, _, err = call("train", "--config", "mine.toml")
    assert code == 2
    assert line in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_what_is_no_file_and_no_run_is_refused_in_one_line(call, tmp_path):
    for args, line in (
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--like", "nowhere"], "'nowhere' is not there; name the directory of a run"),
        (["--like", "a", "--config", "b"], "config has no effect beside like"),
        (["--schedule", "entropy_coef"], "--schedule = 'entropy_coef' cannot be read; write NAME="),
        (["--env-params", "gravity=high"], "--env-params = 'gravity=high' cannot be read"),
    ):
        code, _, err = call("show", *args)
        assert code == 2
        assert line in err
        assert err.count("\n") == 1


def test_train_like_a_run_is_the_same_run(call, tmp_path):
    code, _, err = call("train", *OPTIONS, "--env-params", "gravity=12", "--directory", "one")
    assert code == 0, err
    outside = OPTIONS[OPTIONS.index("--seeds") :]
    code, _, err = call("train", "--like", "one", *outside, "--directory", "two")
    assert code == 0, err
    one, two = (purerl.resume(tmp_path / name, progress=False) for name in ("one", "two"))
    assert one.config == two.config
    assert float(one.config.env_params.gravity) == 12
    assert (one.metrics.episode_return == two.metrics.episode_return)[~_nan(one)].all()
    assert one.config.asked.source("num_envs") == "given"
    code, _, err = call("train", "--like", "one", "--algo", "reinforce")
    assert (code, err.count("\n")) == (2, 1)
    assert "--algo = 'reinforce' does not fit 'one', whose settings are of vpg" in err
    _, out, _ = call("show", "--like", "two")
    assert shown(out)["env_params"] == "gravity: 12 two"


def _nan(run):
    return run.metrics.episode_return != run.metrics.episode_return


@pytest.mark.parametrize(
    "command", ["train", "sweep", "show", "resume", "evaluate", "export", "render", "plan", "bench"]
)
def test_help_shows_defaults(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert "None" not in out
    assert "(default: " in out


def test_help_is_quick_and_says_the_defaults(tmp_path):
    done = run_purerl("train", "--help", cwd=tmp_path)
    out = " ".join(done.stdout.replace("│", " ").split())
    assert "--total-steps INT Environment steps of one seed" in out
    assert "(default: 0.003; ppo 0.001)" in out
    assert "jax" not in done.stderr


def test_numbers_as_people_write_them():
    assert [whole_number(word) for word in ("300", "1e6", "2_000_000", "2.0")] == [
        300,
        1_000_000,
        2_000_000,
        2,
    ]
    with pytest.raises(ValueError, match=r"1\.5 is no whole number"):
        whole_number("1.5")
    assert cli.Show  # one of the commands
