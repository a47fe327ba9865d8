import json

import pytest
from commands import ROOT, run_purerl
from small import OPTIONS


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_train_shows_the_result_and_leaves_a_run_directory(tmp_path):
    done = run_purerl("train", *OPTIONS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for what in ("CartPole-v1 · vpg · 4 seeds", "seeds at 475 or more", "0 of 4", "import + comp"):
        assert what in done.stdout
    written = {path.name for path in (tmp_path / "runs/CartPole-v1-vpg").iterdir()}
    files = {"config.json", "metrics.npz", "summary.json", "learning_curve.png", "returns.png"}
    assert written == files | {"checkpoints", "records", ".lock"}


def test_train_takes_an_environment_by_import_path(tmp_path, call):
    source = (ROOT / "tests/support/probes.py").read_text()
    (tmp_path / "mine.py").write_text(source.replace("limit: bool = False", "limit: bool = True"))
    code, out, err = call("train", "--env", "mine:Probe", *OPTIONS)
    assert code == 0, err
    assert "Probe · vpg · 4 seeds" in out


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--env", "CartPol-v1"], "did you mean CartPole-v1"),
        (["--env", "nowhere:Env"], "cannot be imported"),
        (["--squash", "True"], "purerl: --squash = True has no effect"),
        (["--discount", "1.5"], "discount = 1.5 must be between 0 and 1"),
        (["--lookahead", "9"], "--lookahead = 9 has no effect: vpg drops no step of a rollout"),
        (["--num-envs", "0"], "purerl: --num-envs = 0 must be a whole number of at least 1"),
        (["--seeds", "0"], "at least one seed"),
        (["--directory", "/dev/null/run"], "cannot be written"),
        (
            ["--num-envs", "3", "--num-minibatches", "5", "--algo", "ppo"],
            "num_envs * rollout_length = 384 is not divisible by --num-minibatches = 5",
        ),
        (["--log-seeds"], "--log-seeds has no effect without loggers; name them: --log jsonl"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(args, line, tmp_path, call):
    code, _, err = call("train", *args)
    assert code == 2
    assert line in err
    assert err.startswith("purerl: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_bad_input_ends_the_process_so(tmp_path):
    done = run_purerl("train", "--discount", "1.5", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "purerl: --discount = 1.5 must be between 0 and 1.\n"


def test_environment_that_breaks_the_contract_ends_with_one_line_and_exit_code_2(tmp_path, call):
    probe = (ROOT / "tests/support/probes.py").read_text()
    five = probe.replace(', {"final_observation": final_obs}', "")
    (tmp_path / "five.py").write_text(five)
    (tmp_path / "broken.py").write_text("this is not defined\n")
    for env, line in (
        ("five:Probe", "Probe.step returned 5 values; return 6"),
        ("broken:Probe", "cannot be imported: NameError"),
    ):
        code, _, err = call("train", "--env", env)
        assert code == 2
        assert line in err
        assert err.count("\n") == 1


def test_directory_of_another_run_ends_with_one_line_and_exit_code_2(tmp_path, call):
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "config.json").write_text('{"fingerprint": "another"}')
    code, _, err = call("train", *OPTIONS, "--directory", directory)
    assert code == 2
    assert "has a config.json that is damaged or not" in err
    assert err.count("\n") == 1
    assert [path.name for path in directory.iterdir()] == ["config.json"]  # no lock either


@pytest.mark.slow
def test_sweep_prints_a_ranking_and_leaves_a_figure(tmp_path, call):
    values = ["--values", "policy_learning_rate=1e-3,3e-3", "discount=0.9,0.99"]
    code, out, err = call("sweep", *OPTIONS, *values)
    assert code == 0, err
    assert "CartPole-v1 · vpg · 4 settings · 4 seeds each" in out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert sorted(row[1] for row in rows) == ["0.001", "0.001", "0.003", "0.003"]
    assert (tmp_path / "runs/CartPole-v1-vpg-sweep/sweep.png").exists()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (["discount=low,high"], "write NAME=1,2"),
        (["gamma=0.9,0.99"], "gamma cannot be swept; use one of"),
        (["discount=0.9..0.99"], "give the number of settings, draws=16"),
        (["discount=0.9", "discount=0.99"], "values name discount twice"),
    ],
)
def test_a_sweep_that_cannot_be_ends_with_one_line_and_exit_code_2(values, line, call):
    code, _, err = call("sweep", "--values", *values)
    assert code == 2
    assert line in err
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.as_users
def test_make_train_solves_cartpole_in_95_of_100_seeds(tmp_path):
    done = run_purerl("train", cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs/CartPole-v1-vpg/summary.json").read_text())
    assert summary["num_seeds"] == 64
    assert summary["target_return"] == 475
    assert summary["solved"] >= 0.95


def test_unknown_option_exits_with_2(tmp_path):
    assert run_purerl("train", "--no-such-option", cwd=tmp_path).returncode == 2


def test_envs_lists_what_trains(call):
    code, out, err = call("envs")
    assert code == 0, err
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "reinforce, vpg" in lines["CartPole-v1"]
    assert "Box(10, 10, 4)" in lines["Breakout-MinAtar"]
    assert "download" in lines["MNISTBandit-bsuite"]
    assert "Each trains with reinforce, vpg, a2c, ppo" in out


@pytest.mark.slow
def test_a_run_or_a_sweep_without_agents_left_ends_with_its_table_and_exit_code_1(tmp_path, call):
    options = ["--env", "probes:Breaking", *OPTIONS]
    line = "all 4 agents failed, in update 1 of 12; first not finite: reward at step 4; nothing is"
    code, out, err = call("train", *options)
    assert code == 1
    assert "0-3 (reward at step 4)" in out
    assert [each for each in err.splitlines() if "purerl: " in each] == err.splitlines()[-1:]
    assert err.splitlines()[-1].startswith(f"purerl: {line}")
    code, out, err = call("resume", "runs/Breaking-vpg", "--env", "probes:Breaking")
    assert code == 1
    assert "0-3 (reward at step 4)" in out
    assert err.startswith(f"purerl: {line}")
    assert err.count("\n") == 1
    code, out, err = call("sweep", *options, "--values", "policy_learning_rate=1e-3,1e-2")
    assert code == 1
    assert "4 (reward at step 4)" in out
    assert "all 8 agents failed, in update 1 of 12; first not finite: reward at step 4" in err


@pytest.mark.slow
def test_a_first_observation_that_cannot_be_ends_with_one_line_and_exit_code_2(tmp_path, call):
    code, _, err = call("train", "--env", "probes:Unborn", *OPTIONS)
    assert code == 2
    assert err.splitlines()[-1].startswith("purerl: Unborn.reset: the first observation of seed 0")
    assert err.count("\n") == 1
    assert [path.name for path in (tmp_path / "runs/Unborn-vpg").iterdir()] == [".lock"]
