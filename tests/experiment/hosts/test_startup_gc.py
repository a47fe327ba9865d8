"""Python looks for garbage again after a start, where it did before."""

import gc

import pytest

from purerl.experiment.hosts.startup import gc_paused


@pytest.fixture(params=[True, False])
def enabled(request):
    """Whether the process that hosts a run looks for garbage by itself."""
    was = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if was else gc.disable)()


def test_garbage_is_not_looked_for_meanwhile(enabled):
    with gc_paused():
        assert not gc.isenabled()
    assert gc.isenabled() == enabled


def test_an_error_leaves_it_as_it_was(enabled):
    with pytest.raises(ValueError, match="bad"), gc_paused():
        raise ValueError("bad")
    assert gc.isenabled() == enabled
