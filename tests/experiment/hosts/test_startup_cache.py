"""Where compiled programs are kept."""

import jax
import pytest
from finished import train
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from purerl.experiment.hosts.startup import use_compilation_cache


@pytest.fixture
def unset(monkeypatch):
    """A process that was not told where to keep compiled programs."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    reset_cache()
    jax.clear_caches()  # another test's program is compiled anew
    yield
    reset_cache()
    for name, value in before.items():
        jax.config.update(name, value)


def cache_dir():
    return getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009


def test_they_are_kept_in_the_users_cache(unset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    use_compilation_cache()
    assert cache_dir() == str(tmp_path / "cache/purerl")
    assert (tmp_path / "cache/purerl").is_dir()


def test_without_a_place_for_them_nothing_is_kept(unset, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    use_compilation_cache()
    assert cache_dir() is None


def test_without_a_home_and_a_name_nothing_is_kept(unset, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", home)
    use_compilation_cache()
    assert cache_dir() is None


def test_a_place_that_was_named_is_left(tmp_path, monkeypatch):
    before = cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compilation_cache()
    assert cache_dir() == before != str(tmp_path / "purerl")


@pytest.mark.slow
def test_a_run_from_python_keeps_what_it_compiles(unset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train(tmp_path / "run")
    assert cache_dir() == str(tmp_path / "cache/purerl")
    assert list((tmp_path / "cache/purerl").glob("jit_on_mesh-*"))
