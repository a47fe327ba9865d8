"""`import purerl` is light, and its names are what they say, whatever was imported before."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import purerl


def run_python(code):
    """Run code in a fresh interpreter, without the hooks and imports of the tests."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_purerl_starts_no_backend_and_imports_nothing_heavy():
    code = """
import sys
import purerl
heavy = ["gymnax", "matplotlib", "tyro", "rich", "scipy.stats", "equinox", "optax"]
print(*[name for name in heavy if name in sys.modules])
if "jax" in sys.modules:
    from jax._src import xla_bridge
    print("backend" if xla_bridge.backends_are_initialized() else "")
"""
    assert run_python(code) == []


@pytest.mark.parametrize("heavy", ["gymnax", "matplotlib", "tyro", "rich"])
def test_using_the_pure_half_imports_nothing_of_the_host_half(heavy):
    code = f"""
import sys
import purerl
purerl.train, purerl.vpg, purerl.evaluate, purerl.train_seeds, purerl.sweep
print({heavy!r} in sys.modules)
"""
    assert run_python(code) == ["False"]


@pytest.mark.parametrize("name", purerl.__all__)
def test_every_public_name_resolves_to_what_its_file_defines(name):
    module = importlib.import_module(
        purerl._public_names()[name]  # pyright: ignore
    )
    assert getattr(purerl, name) is getattr(module, name)


def test_importing_every_module_hides_no_public_name():
    code = """
import importlib, pkgutil, types
import purerl
names = purerl.__all__
for module in pkgutil.walk_packages(purerl.__path__, "purerl."):
    if module.name != "purerl.__main__":
        importlib.import_module(module.name)
print(*[name for name in names if isinstance(getattr(purerl, name), types.ModuleType)])
"""
    assert run_python(code) == []


def test_the_version_stands_in_one_place_and_the_package_is_typed():
    root = Path(purerl.__file__).parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["hatch"]["version"]["path"] == "purerl/__init__.py"
    cited = (root / "CITATION.cff").read_text().splitlines()
    assert [line for line in cited if line.startswith("version")] == []
    assert (root / "purerl/py.typed").exists()


def test_dir_lists_every_public_name():
    assert set(purerl.__all__) <= set(dir(purerl))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'reinforced'"):
        purerl.reinforced  # pyright: ignore[reportAttributeAccessIssue]
