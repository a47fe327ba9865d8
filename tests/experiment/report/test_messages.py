"""Messages name arguments in Python, and flags where somebody has typed a command."""

from pathlib import Path

import pytest

from purerl.checks import option, speaking_to_a_shell, speaks_to_a_shell
from purerl.experiment.store.paths import resume_command


def test_options_are_named_as_whoever_reads_gives_them():
    run = Path("/runs/a run")
    assert option("force") == "force=True"
    assert option("seed_batch", 32) == "seed_batch=32"
    assert resume_command(run, force=True) == "purerl.resume('/runs/a run', force=True)"
    with speaking_to_a_shell():
        assert option("force") == "--force"
        assert option("seed_batch", 32) == "--seed-batch 32"
        assert option("env", "a b") == "--env 'a b'"
        assert resume_command(run, force=True) == "purerl resume '/runs/a run' --force"
    assert not speaks_to_a_shell()


def test_a_command_that_fails_leaves_nothing_behind():
    with pytest.raises(KeyError), speaking_to_a_shell():
        raise KeyError
    assert not speaks_to_a_shell()


def test_compare_names_the_flag_to_a_shell_and_the_argument_in_python(finished, tmp_path, call):
    from finished import altered

    from purerl.experiment.report.comparison import compare_runs

    other = altered(finished, tmp_path / "other", header={"evaluation_episodes": 64})
    with pytest.raises(ValueError, match="use allow_different=True"):
        compare_runs([finished, other])
    code, _, err = call("compare", str(finished), str(other))
    assert code == 2
    assert "use --allow-different." in err
    figure = str(tmp_path / "figure.png")
    code, out, err = call(
        "compare", str(finished), str(other), "--allow-different", "--output", figure
    )
    assert code == 0, err
    assert out.split("\n")[0].startswith("CartPole-v1; unlike vpg: other (evaluation_episodes")
