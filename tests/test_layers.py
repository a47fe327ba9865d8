"""Imports point one way, and the pure half touches nothing outside itself."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "purerl"

# Every room of the pure half; a file that is in none of them fails, so that it is given a place.
ROOMS = (
    ("types", "operations", "platforms"),
    ("ahead", "products", "shuffle"),
    ("returns", "distributions", "envs", "layers", "streams", "checks"),
    ("networks", "losses", "optimizers", "running", "sharding"),
    ("algorithms", "carried", "blocks"),
    ("plugs", "fit"),
    ("config",),
    ("factories", "sweep", "anneal", "rollout", "update"),
    ("presets", "train", "mapped"),
    ("seeds", "evaluate"),
)
LAYER = {room: layer for layer, rooms in enumerate(ROOMS) for room in rooms}
HOST = ("experiment", "cli", "options", "__main__")
# `import purerl` re-exports both halves, lazily.
EXEMPT = "__init__"

WORLD = ("os", "pathlib", "time", "rich", "matplotlib")
WORLDLY_CALLS = ("print", "open", "input")

FILES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.rglob("*.py"))}


def room_of(file):
    """The room of a file: its name, or the folder it stands in."""
    return file.removesuffix(".py").split("/")[0]


def imported_modules(source):
    """The full name of everything that is imported anywhere in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported_rooms(source):
    """The rooms of purerl that a file imports from; "" is the package itself."""
    for module in imported_modules(source):
        first, _, rest = module.partition(".")
        assert first, f"{module} is a relative import; write purerl.…"
        if first == "purerl":
            yield rest.split(".")[0]


def upward_imports(file, source):
    """The rooms that a file of the pure half may not import from, but does."""
    room = room_of(file)
    below = {other for other, layer in LAYER.items() if layer < LAYER[room]}
    # A folder is one room: its files import each other.
    return set(imported_rooms(source)) - below - ({room} if "/" in file else set())


def worldly(source):
    """What a file has to do with the world outside: its modules, and calls such as `print`."""
    modules = {module.split(".")[0] for module in imported_modules(source)}
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return (modules & set(WORLD)) | (calls & set(WORLDLY_CALLS))


PURE = sorted(file for file in FILES if room_of(file) in LAYER)


def test_every_file_has_a_place():
    assert {room_of(file) for file in FILES} <= {*LAYER, *HOST, EXEMPT}


@pytest.mark.parametrize("file", PURE)
def test_a_pure_file_imports_only_from_below(file):
    assert upward_imports(file, FILES[file]) == set()


@pytest.mark.parametrize("file", PURE)
def test_a_pure_file_leaves_the_world_alone(file):
    assert worldly(FILES[file]) == set()


def test_only_the_host_half_imports_the_experiment():
    importers = {room_of(file) for file in FILES if "experiment" in imported_rooms(FILES[file])}
    assert importers <= {*HOST, EXEMPT}


@pytest.mark.parametrize(
    ("file", "source", "bad"),
    [
        ("losses.py", "from purerl.types import Env", set()),
        ("losses.py", "from purerl.train import train", {"train"}),
        ("losses.py", "from purerl.optimizers import clipped_adam", {"optimizers"}),
        ("losses.py", "def f():\n    import purerl.experiment.run", {"experiment"}),
        ("losses.py", "import purerl", {""}),
        ("rollout.py", "from purerl import envs", set()),
        ("rollout.py", "from purerl import vpg", {"vpg"}),
        ("envs/make.py", "from purerl.envs.spaces import Box", set()),
    ],
)
def test_the_layering_test_sees_an_upward_import(file, source, bad):
    assert upward_imports(file, source) == bad


@pytest.mark.parametrize("source", ["import os.path", "from time import time", "print(1)"])
def test_the_purity_test_sees_the_world(source):
    assert len(worldly(source)) == 1
