"""Every snippet and every command in the README and on the pages runs, at a smaller size."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from commands import ROOT, has_compilers, run_purerl

import purerl
from purerl.config.settings import Settings

PAGES = ROOT / "docs/pages"
SMALLER = {
    "total_steps=300_000": "total_steps=4_096",
    "total_steps=20_000": "total_steps=1_024",
    "num_episodes=100": "num_episodes=4",
    "draws=16": "draws=2",
    "seed_keys(0, 256)": "seed_keys(0, 4)",
    "seeds=256": "seeds=4",
}
# The runs that later commands take.
RUNS = ["--directory runs/vpg", "--directory runs/ppo", "--directory runs/kept"]
FENCE = re.compile(r"^(?:<!-- ([^>\n]*) -->\n)?```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r'^--8<-- "README.md:(\w+)"$', re.MULTILINE)


def read(path):
    """A page's text, with what it includes of the README."""
    readme = (ROOT / "README.md").read_text()

    def section(match):
        begin, end = (f"<!-- --8<-- [{edge}:{match[1]}] -->" for edge in ("start", "end"))
        return readme.split(begin)[1].split(end)[0]

    return INCLUDED.sub(section, path.read_text())


# In the order in which they are read.
NAMES = re.findall(r"\S+\.md$", (ROOT / "docs/mkdocs.yml").read_text(), re.MULTILINE)
TEXTS = {name: read(PAGES / name) for name in NAMES if name != "benchmarks/index.md"}
GUIDES = {name: text for name, text in TEXTS.items() if not name.startswith("reference/")}
REFERENCE = {name: text for name, text in TEXTS.items() if name.startswith("reference/")}


def blocks(text, language, mark=""):
    """The code blocks of a language, after a line with this mark, or after none."""
    return [body for found, lang, body in FENCE.findall(text) if (found, lang) == (mark, language)]


def execute(source, name):
    exec(compile(source, name, "exec"), {"__name__": "docs"})


def test_every_page_is_read_and_every_snippet_is_run_by_one_of_these_tests():
    assert {str(path.relative_to(PAGES)) for path in PAGES.rglob("*.md")} == {*NAMES}
    kinds = {(mark, lang) for text in TEXTS.values() for mark, lang, _ in FENCE.findall(text)}
    marks = {("", "python"), ("a process of its own", "python"), ("", "sh"), ("", "text")}
    assert kinds == marks | {("slow", "python"), ("compilers", "python")}
    for text in TEXTS.values():
        assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(FENCE.findall(text))
    sections = set(re.findall(r"\[start:(\w+)\]", (ROOT / "README.md").read_text()))
    included = [name for page in NAMES for name in INCLUDED.findall((PAGES / page).read_text())]
    assert {*included} == sections
    outside = read(ROOT / "README.md")
    for name in sections:
        outside = re.sub(rf"\[start:{name}\].*?\[end:{name}\]", "", outside, flags=re.DOTALL)
    assert FENCE.findall(outside) == []  # all of the README's are on a page too


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, text in GUIDES.items() if blocks(text, "python")])
def test_the_python_of_a_page_runs_in_order(name, tmp_path, monkeypatch, capsys):
    source = "\n".join(blocks(GUIDES[name], "python"))
    for full, small in SMALLER.items():
        source = source.replace(full, small)
    monkeypatch.chdir(tmp_path)
    execute(source, name)
    if name == "method.md":
        assert "9.56179" in capsys.readouterr().out


def test_every_smaller_size_is_one_of_a_snippet():
    source = "\n".join(body for text in GUIDES.values() for body in blocks(text, "python"))
    for full in SMALLER:
        assert full in source


@pytest.mark.parametrize(
    "block",
    [body for text in GUIDES.values() for body in blocks(text, "python", "a process of its own")],
)
def test_python_that_needs_a_process_of_its_own_runs(block):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    subprocess.run([sys.executable, "-c", block], check=True, env=environment, timeout=120)


def entries(text):
    """The public names of a page of the reference, each with what follows it."""
    parts = re.split(r"^::: purerl\.(\w+)$", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_the_reference_has_every_public_name_once_with_an_example_that_uses_it():
    found = [entry for text in REFERENCE.values() for entry in entries(text)]
    assert sorted(name for name, _ in found) == purerl.__all__
    for name, text in found:
        (example,) = (body for _, lang, body in FENCE.findall(text) if lang == "python")
        assert re.search(rf"\bpurerl\.{name}\b|\b{name}\b", example), name


@pytest.mark.parametrize("name", REFERENCE)
def test_the_examples_of_the_reference_run_as_they_stand(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    execute("\n".join(blocks(REFERENCE[name], "python")), name)


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["slow", "compilers"])
def test_the_slow_examples_of_the_reference_run_as_they_stand(mark, tmp_path, monkeypatch):
    if mark == "compilers" and not has_compilers():
        pytest.skip("needs the compilers of the extra `plan`")
    monkeypatch.chdir(tmp_path)
    for name, text in REFERENCE.items():
        if blocks(text, "python", mark):
            kinds = ("", mark)
            source = [body for found, _, body in FENCE.findall(text) if found in kinds]
            execute("\n".join(source), name)


def commands():
    lines = "\n".join(body for text in GUIDES.values() for body in blocks(text, "sh")).splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("purerl")]


def takes_a_run(command):
    """Whether it reads what an earlier one has written, or writes a file for a later one."""
    reads = command.split()[1] in ("resume", "evaluate", "compare", "export", "render")
    return reads or any(word in command for word in ("--like", "agent.toml"))


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


def test_make_targets_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = "\n".join(TEXTS.values()) + read(ROOT / "README.md")
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)\b", text, re.MULTILINE))
    assert {"train", "test-all", "test", "check", "bench", "docs"} <= named <= targets


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert Path(ROOT, link).exists(), link
    assert len(text.splitlines()) <= 250  # what a visitor reads in three minutes


def test_the_table_of_settings_has_each_of_them_and_its_defaults(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import settings_table

    rows = [line.split(" | ") for line in settings_table.table().splitlines()[2:]]
    defaults = {row[0].strip("| `"): row[1] for row in rows}
    assert {*defaults} == {*get_type_hints(Settings)}
    assert defaults["baseline_epochs"] == "reinforce 1, vpg 10, a2c 4, ppo as it follows"
    assert defaults["discount"] == "0.99"
    assert (defaults["target_kl"], defaults["lookahead"]) == ("inf", "as it follows")
    assert all(len(row) == 3 and len(row[2]) > 8 for row in rows)


def test_traced_and_static_table_names_every_field():
    table = GUIDES["settings.md"].split("## Traced and static")[1].split("##")[0]
    for field in dataclasses.fields(purerl.Hyperparams) + dataclasses.fields(purerl.Config):
        assert f"`{field.name}`" in table or f"`config.{field.name}`" in table, field.name
