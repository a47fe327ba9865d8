"""What processes tell each other from threads, here played by threads of one process."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import pytest

from purerl.experiment.hosts import background
from purerl.experiment.hosts.background import Exchange, in_background
from purerl.experiment.hosts.processes import is_raised_by_all


class Client:
    """A coordination service that threads share."""

    def __init__(self):
        self.told: dict[str, str] = {}
        self.has_news = threading.Condition()

    def key_value_set(self, key, value):
        with self.has_news:
            assert key not in self.told
            self.told[key] = value
            self.has_news.notify_all()

    def blocking_key_value_get(self, key, milliseconds):
        with self.has_news:
            if not self.has_news.wait_for(lambda: key in self.told, milliseconds / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: of a key")
            return self.told[key]

    def key_value_delete(self, key):
        with self.has_news:
            del self.told[key]


@pytest.fixture
def client(monkeypatch):
    """Threads of the name `N` are process N of three."""
    client = Client()
    monkeypatch.setattr(background, "_client", lambda: client)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: int(threading.current_thread().name))
    return client


def in_all(function) -> list[Future]:
    def call(process):
        threading.current_thread().name = str(process)
        return function(process)

    with ThreadPoolExecutor(3) as pool:
        return [pool.submit(call, process) for process in range(3)]


@pytest.fixture
def exchanges(monkeypatch):
    """One of each process, which all made as their fifth."""
    made = []
    for _ in range(3):
        monkeypatch.setattr(Exchange, "_numbers", iter([5]))
        made.append(Exchange())
    return made


def test_all_hear_what_each_says_and_nothing_grows(client, exchanges):
    def talk(process):
        return [exchanges[process].call_in_all(list, [turn, process]) for turn in range(20)]

    for future in in_all(talk):
        assert future.result() == [[[turn, process] for process in range(3)] for turn in range(20)]
    assert sorted(client.told) == [f"purerl/5/19/{process}" for process in range(3)]


def test_what_fails_in_one_is_raised_in_all(client, exchanges):
    def fail(process):
        if process == 1:
            raise OSError(122, "Disk quota exceeded", "/a/b")
        if process == 2:
            raise RuntimeError("its own\nand more")
        return process

    errors = [
        future.exception()
        for future in in_all(lambda process: exchanges[process].call_in_all(fail, process))
    ]
    assert [type(error) for error in errors] == [OSError, OSError, RuntimeError]
    assert [str(error) for error in errors[:2]] == [
        "[Errno 122] Disk quota exceeded",
        "[Errno 122] Disk quota exceeded: '/a/b'",
    ]
    assert all(error is not None and is_raised_by_all(error) for error in errors)
    again = in_all(lambda process: exchanges[process].call_in_all(lambda: process))
    assert [future.result() for future in again] == [[0, 1, 2]] * 3


def test_a_process_that_is_silent_is_named(client, exchanges, monkeypatch):
    monkeypatch.setattr(background, "PATIENCE", 0.1)
    silent = lambda process: process == 2 or exchanges[process].call_in_all(lambda: None)  # noqa: E731
    for future in in_all(silent)[:2]:
        with pytest.raises(TimeoutError, match=r"process 2 has said nothing for 0\.1 s"):
            future.result()


def test_one_process_talks_to_nobody():
    assert Exchange().call_in_all(lambda x: x + 1, 2) == [3]
    with pytest.raises(KeyError):
        in_background(lambda: {}["a"]).result()
