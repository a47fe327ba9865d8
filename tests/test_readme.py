"""Every snippet in the README runs, at a smaller size."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from commands import ROOT, has_compilers, run_purerl

README = (ROOT / "README.md").read_text()
SMALLER = {
    "total_steps=300_000": "total_steps=4_096",
    "total_steps=20_000": "total_steps=1_024",
    "draws=16": "draws=2",
    "seed_keys(0, 256)": "seed_keys(0, 4)",
    "seeds=256": "seeds=4",
}
# The runs that README's later commands take.
RUNS = ["--directory runs/vpg", "--directory runs/ppo", "--directory runs/kept"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_python_snippets_run_in_order(tmp_path, monkeypatch, capsys):
    source = "\n".join(blocks("python"))
    for full, small in SMALLER.items():
        assert full in source
        source = source.replace(full, small)
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})
    assert "9.56179" in capsys.readouterr().out


@pytest.mark.parametrize("block", blocks("python alone"))
def test_python_snippets_that_need_a_process_of_their_own_run(block):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    subprocess.run([sys.executable, "-c", block], check=True, env=environment, timeout=120)


def test_every_snippet_is_run_by_one_of_these_tests():
    languages = set(re.findall(r"^```(\S.*)$", README, re.MULTILINE))
    assert languages == {"python", "python alone", "sh", "text"}


def commands():
    lines = "\n".join(blocks("sh")).splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("purerl")]


def takes_a_run(command):
    return command.split()[1] in ("resume", "evaluate", "compare", "export", "render")


def run_command(command, directory):
    args = shlex.split(command)[1:]
    if args[0] == "plan" and not has_compilers():
        pytest.skip("needs the compilers of the extra `plan`")
    if args[0] in ("train", "sweep"):
        args += ["--seeds", "4", "--total-steps", "4096"]
    if args[0] == "bench":
        args += ["--seeds", "2", "--num-envs", "4", "--updates", "2", "--repeats", "1"]
    if "--draws" in args:
        args += ["--draws", "2"]
    args = [{"600000": "8192", "5000": "300"}.get(each, each) for each in args]
    done = run_purerl(*args, cwd=directory)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in commands() if not takes_a_run(each)])
def test_commands_run(command, tmp_path):
    run_command(command, tmp_path)


@pytest.mark.slow
def test_commands_on_runs_run_in_order(tmp_path):
    for command in commands():
        if takes_a_run(command) or any(run in command for run in RUNS):
            run_command(command, tmp_path)
    written = {str(path.relative_to(tmp_path / "runs")) for path in tmp_path.glob("runs/*/*")}
    files = {"vpg/evaluation_greedy.json", "vpg/policy_3.npz", "vpg/metrics.csv", "vpg/seed_3.gif"}
    assert files | {"vpg/metrics.jsonl", "vpg/tensorboard"} <= written
    assert (tmp_path / "runs/scores.npz").exists()
    assert (tmp_path / "comparison.png").exists()


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"make (train|test-all|test|check|bench)\b", README))
    assert named == {"train", "test-all", "test", "check", "bench"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_traced_and_static_table_names_every_field():
    import dataclasses

    import purerl

    table = README.split("## Traced and static")[1].split("##")[0]
    for field in dataclasses.fields(purerl.Hyperparams) + dataclasses.fields(purerl.Config):
        assert f"`{field.name}`" in table or f"`config.{field.name}`" in table, field.name
