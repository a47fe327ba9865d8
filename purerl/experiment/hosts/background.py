"""Work in the background of training, in one process or in all together."""

import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax
from jax._src.distributed import global_state  # jax shows its coordination service nowhere else

from purerl.checks import first_line
from purerl.experiment.hosts.processes import is_multi_process, mark_raised_by_all

PATIENCE = 600  # seconds to wait for what another process has to tell


def in_background(function: Callable[..., Any], *args: Any) -> "Future[Any]":
    """Call a function in a thread of its own.

    Python does not wait for it when the process ends: it may wait for another process that is gone.
    """
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


class Exchange:
    """What all processes tell each other from a thread, beside the collectives of training.

    They do so through jax's coordination service. All must make their exchanges, and call one, in
    the same order.
    """

    _numbers = itertools.count()

    def __init__(self):
        self._number = next(Exchange._numbers)
        self._turn = 0

    def call_in_all(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call a function in each process; return what each returned, a value for JSON.

        **Raises:** in all processes, where it failed in one: its own error, or one with the message
        of the first other. `TimeoutError` where a process does not say how it went.
        """
        if not is_multi_process():
            return [function(*args)]
        error, outcome = None, {}
        try:
            outcome = {"value": function(*args)}
        except Exception as raised:
            error, number = raised, getattr(raised, "errno", None)
            message = raised.strerror if isinstance(raised, OSError) else None
            outcome = {"message": message or first_line(raised), "errno": number}
        outcomes = self._gather(outcome)
        failed = next((outcome for outcome in outcomes if "value" not in outcome), None)
        if failed is None:
            return [outcome["value"] for outcome in outcomes]
        if error is None:
            number, message = failed["errno"], failed["message"]
            error = ValueError(message) if number is None else OSError(number, message)
        raise mark_raised_by_all(error)

    def _gather(self, value: Any) -> list[Any]:
        me, count, client = jax.process_index(), jax.process_count(), _client()
        client.key_value_set(self._key(self._turn, me), json.dumps(value))
        gathered = [value if other == me else self._told(other) for other in range(count)]
        if self._turn:  # who has told this has read what was told before: nothing grows
            client.key_value_delete(self._key(self._turn - 1, me))
        self._turn += 1
        return gathered

    def _told(self, process: int) -> Any:
        key = self._key(self._turn, process)
        try:
            return json.loads(_client().blocking_key_value_get(key, PATIENCE * 1000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            raise TimeoutError(f"process {process} has said nothing for {PATIENCE} s") from error

    def _key(self, turn: int, process: int) -> str:
        return f"purerl/{self._number}/{turn}/{process}"


def _client() -> Any:
    assert global_state.client is not None  # that of several processes
    return global_state.client
