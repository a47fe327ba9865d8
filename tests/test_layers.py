"""Imports point one way from room to room, and the pure half touches nothing outside itself."""

import ast
from pathlib import Path

import pytest

import purerl

ROOT = Path(purerl.__file__).parent

# From the ground up. A file imports from its own folder and from what stands in a line before it.
PURE = (
    ("checks", "types"),
    ("compute",),
    ("seeds", "returns", "losses", "distributions"),
    ("algorithms",),
    ("envs",),
    ("networks",),
    ("config",),
    ("rollout", "fit"),
    ("update", "evaluation"),
    ("training",),
    ("agents",),
)
HOST = (
    ("experiment.hosts",),
    ("experiment.store",),
    ("experiment.report",),
    ("experiment.logging", "experiment.play"),
    ("experiment",),
    ("planning",),
    ("measuring",),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, rooms in enumerate(PURE + HOST) for room in rooms}
# The package itself: it re-exports both halves, lazily, and imports neither.
PACKAGE = ""
MOST_FILES = 14  # in one folder

WORLD = ("os", "pathlib", "sys", "time", "rich", "matplotlib")
# It stands in for what gymnax draws with while it imports gymnax.
WORLDLY = {"envs.gymnax": {"sys"}}
WORLDLY_CALLS = ("print", "open", "input")


def module_name(path):
    """The name of a file within purerl: `compute.rows`; of an `__init__`, that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
FOLDERS = {module_name(path) for path in ROOT.rglob("__init__.py")}
MODULES = sorted({*SOURCES} - FOLDERS)
# All that imports: the files and the `__init__` of each folder, but not that of the package.
IMPORTERS = sorted({*SOURCES} - {PACKAGE})


def room_of(module):
    """The room of a module: the folder it stands in, or its own name where it is in none."""
    folder = module if module in FOLDERS else module.rpartition(".")[0]
    return folder or module


def imported_names(source):
    """The full name of everything that is imported anywhere in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import; write purerl.…"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(source):
    """The modules of purerl that a file imports, or imports a name from."""
    for name in imported_names(source):
        first, _, rest = name.partition(".")
        if first == "purerl" and name != "purerl.__version__":
            yield rest if rest in SOURCES else rest.rpartition(".")[0]


def is_upward(module, imported):
    """Whether a module may not import another: it stands above, or beside it in another room."""
    here, there = room_of(module), room_of(imported)
    return there != here and (imported == PACKAGE or RANK[there] >= RANK[here])


def upward_imports(module, source):
    return {name for name in imported_modules(source) if is_upward(module, name)}


def worldly(source):
    """What a file has to do with the world outside: its modules, and calls such as `print`."""
    modules = {name.split(".")[0] for name in imported_names(source)}
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return (modules & set(WORLD)) | (calls & set(WORLDLY_CALLS))


def circles(edges):
    """The modules that import themselves, by way of others or not."""
    reached = {module: imported & {*edges} for module, imported in edges.items()}
    for middle in edges:
        for module in edges:
            if middle in reached[module]:
                reached[module] |= reached[middle]
    return sorted(module for module in edges if module in reached[module])


def test_every_module_has_a_room():
    assert {room_of(module) for module in MODULES} <= {*RANK}


@pytest.mark.parametrize("module", IMPORTERS)
def test_a_module_imports_only_from_below(module):
    assert upward_imports(module, SOURCES[module]) == set()


def test_no_modules_import_each_other():
    edges = {module: set(imported_modules(SOURCES[module])) for module in IMPORTERS}
    assert circles(edges) == []


@pytest.mark.parametrize(
    "module", [module for module in IMPORTERS if RANK[room_of(module)] < len(PURE)]
)
def test_a_pure_module_leaves_the_world_alone(module):
    assert worldly(SOURCES[module]) == WORLDLY.get(module, set())


@pytest.mark.parametrize("folder", sorted(FOLDERS - {PACKAGE, "envs"}))
def test_a_folder_only_says_what_it_is_for(folder):
    (docstring,) = ast.parse(SOURCES[folder]).body
    assert isinstance(docstring, ast.Expr)


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folder_has_few_files(folder):
    files = [module for module in MODULES if module.rpartition(".")[0] == folder]
    assert len(files) <= MOST_FILES


def test_no_module_or_folder_has_the_name_of_a_public_function():
    names = {module.rpartition(".")[2] for module in SOURCES}
    assert names & set(purerl.__all__) == set()


@pytest.mark.parametrize(
    ("module", "source", "bad"),
    [
        ("losses", "from purerl.types import Env", set()),
        ("losses", "from purerl.training import train", {"training"}),
        ("losses", "from purerl import returns", {"returns"}),
        ("losses", "def f():\n    import purerl.experiment.runner", {"experiment.runner"}),
        ("losses", "import purerl", {""}),
        ("rollout", "from purerl import envs", set()),
        ("rollout", "from purerl import vpg", {""}),
        ("envs.names", "from purerl.envs.spaces import Box", set()),
        ("compute.rows", "from purerl.networks.network import Network", {"networks.network"}),
        ("experiment.store.files", "from purerl.experiment.loop import x", {"experiment.loop"}),
        ("experiment.loop", "from purerl.experiment.store.files import x", set()),
        ("experiment.loop", "from purerl import __version__", set()),
    ],
)
def test_the_layering_test_sees_an_upward_import(module, source, bad):
    assert upward_imports(module, source) == bad


def test_the_circle_test_sees_a_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]


@pytest.mark.parametrize("source", ["import os.path", "from time import time", "print(1)"])
def test_the_purity_test_sees_the_world(source):
    assert len(worldly(source)) == 1
