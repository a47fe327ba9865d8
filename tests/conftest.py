"""Every test runs on two CPU devices, and with shapes checked unless `UNCHECKED_SHAPES` is set."""

import os
import sys
import warnings
from pathlib import Path

# Before anything imports jax. Two devices, as the command line sets up on two cores.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# Most of a test's time goes into compiling a program that hardly runs: compile plainly. With any
# XLA_FLAGS of your own, such as none (XLA_FLAGS= pytest), programs are compiled as for users.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

import jax
import pytest
from jaxtyping import install_import_hook

if "UNCHECKED_SHAPES" not in os.environ:
    install_import_hook("purerl", "beartype.beartype")


@pytest.fixture
def without_type_checks():
    """A user has no type checker in the way: what is refused must be refused without one."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session", autouse=True)
def compiled_plainly():
    import purerl.compute.mapping

    if "xla_backend_optimization_level=0" in os.environ["XLA_FLAGS"]:
        purerl.compute.mapping.CPU_OPTIONS.clear()


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(pytestconfig):
    """One for all workers, for the processes that tests start, and for the next session."""
    directory = pytestconfig.cache.mkdir("jax")
    settings = {
        "jax_compilation_cache_dir": str(directory),
        "jax_compilation_cache_max_size": 2**32,  # with a size, jax takes a lock for each entry
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(autouse=True)
def figures_drawn_plainly(request, monkeypatch):
    """Runs of tests draw figures that nobody looks at; `test_figures` draws as users see them."""
    if request.path.stem != "test_figures":
        monkeypatch.setattr("purerl.experiment.report.figures.DPI", 20)
        monkeypatch.setattr("purerl.experiment.report.figures.LAYOUT", None)


@pytest.fixture(autouse=True)
def few_memory_maps():
    """Each compiled program holds memory maps, of which Linux grants a process 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def call(monkeypatch, capsys):
    """The command line in this process: its exit code, and what it has said."""
    from purerl.cli.main import main
    from purerl.experiment.hosts import startup

    monkeypatch.setattr(startup, "use_all_cores", lambda: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*args):
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                main([str(each) for each in args])
            except SystemExit as end:
                code = end.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The directory of a finished run of 4 seeds, which tests leave as it is."""
    from finished import train

    directory = tmp_path_factory.mktemp("runs") / "vpg"
    train(directory, evaluate_every=2)
    return directory
