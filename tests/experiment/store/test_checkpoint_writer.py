"""What is printed of a checkpoint that cannot be written: one line, by who runs it."""

import pytest

from purerl.experiment.hosts import processes
from purerl.experiment.hosts.stopping import LostProcessError, RunError
from purerl.experiment.store import checkpoint_writer
from purerl.experiment.store.identity import Identity


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "/shared/nccl-test/a"), "the disk is full"),
        (OSError(13, "Permission denied", "/shared/nccl-test/a"), "Permission denied"),
        (ValueError("Error writing /shared/gloo/a: not allowed"), "not allowed"),
        (ValueError("[external/gloo/pair.cc:5] Connection closed by peer"), "another process has"),
        (RuntimeError("Barrier failed. Id: a/b"), "another process has"),
    ],
)
def test_a_write_that_fails_is_no_death_of_another_process(error, says, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "is_multi_process", lambda: True)
    writer = checkpoint_writer.CheckpointWriter(tmp_path, Identity.new()._asdict(), 0)
    with pytest.raises(RunError) as failed, writer._explaining_failure():
        raise error
    assert says in str(failed.value)
    assert isinstance(failed.value, LostProcessError) == (says == "another process has")
