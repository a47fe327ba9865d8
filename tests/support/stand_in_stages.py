"""Stages of a visit in which everything goes wrong, quickly."""

import os
import signal
import time

from visiting.stage import Part, Skipped, Stage


def fine(context):
    return {"line": "fine"}


def device(context):
    return {"device": "Stand-In 1", "line": "a stand-in"}


def slow(context):
    time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
    return {"line": "slow"}


def hang(context):
    time.sleep(600)


def wrong(context):
    raise ValueError("a wrong\nvalue")


def exhausted(context):
    raise MemoryError("RESOURCE_EXHAUSTED")


def killed(context):
    os.kill(os.getpid(), signal.SIGKILL)


def nothing(context):
    raise Skipped("nothing is here")


def stage(number, name, limit=20.0, **works):
    seconds = float(os.environ.get("STAND_IN_ESTIMATE", "0")) if number > 1 else 0.0
    return Stage(number, name, limit, lambda context: [
        Part(each, seconds, work) for each, work in works.items()
    ])  # fmt: skip


STAGES = [
    stage(1, "device", device=device),
    stage(2, "fine", one=fine, two=slow, three=slow),
    stage(3, "hanging", limit=3.0, before=fine, hang=hang, after=fine),
    stage(4, "raising", wrong=wrong, nothing=nothing, after=fine),
    stage(5, "out of memory", exhausted=exhausted, killed=killed, after=fine),
    stage(6, "last", one=fine),
]
