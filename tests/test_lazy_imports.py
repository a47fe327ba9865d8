"""Modules that are imported when something is read from them."""

import json
import subprocess
import sys

HEAVY = ("matplotlib", "seaborn", "pandas", "scipy.stats", "torch")
LOADED = f"import json, sys; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"


def run_python(code):
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(found.stdout)


def test_an_environment_is_made_without_what_draws_it():
    assert run_python(f"import purerl; purerl.make_env('CartPole-v1'); {LOADED}") == []


def test_the_command_line_starts_without_what_only_its_end_needs():
    assert run_python(f"import purerl.cli.main, purerl.cli.commands; {LOADED}") == []


def test_what_was_stood_for_is_there_when_it_is_used():
    code = """
import json, sys, purerl
purerl.make_env("Catch-bsuite")
from gymnax.environments.bsuite import catch
assert "matplotlib" not in sys.modules
figure, _ = catch.plt.subplots()
import matplotlib.figure
print(json.dumps(isinstance(figure, matplotlib.figure.Figure)))
"""
    assert run_python(code) is True


def test_a_module_that_is_there_stays():
    code = """
import json, matplotlib.pyplot as before, purerl
purerl.make_env("Catch-bsuite")
from gymnax.environments.bsuite import catch
print(json.dumps(catch.plt is before))
"""
    assert run_python(code) is True
