"""How a process asks another, which ends with it: question and answer are JSON, in files.

Importing this imports nothing that takes long: a process that must not take a device does so too.
"""

import json
import operator
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WATCH_SECONDS = 0.5  # between two looks whether the process that started this one still lives
# Of what a process says at its end: tracebacks, and what XLA and absl say before they abort.
SAYS_WHY = re.compile(r"Error|RESOURCE_EXHAUSTED|^F\d{4}|Check failed")


def ask(
    module: str, question: dict[str, Any], said: Path | None = None, **variables: str
) -> tuple[dict[str, Any], str]:
    """The answer of another process, empty where there is none; and how that process ended.

    **Arguments:** `module` takes the files of question and answer and this process's id; to the
    file `said` is added what it says; `variables` join its environment.
    """
    root = str(Path(__file__).parents[3])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
        "JAX_ENABLE_COMPILATION_CACHE": "0",  # the seconds of compiling are measured
        **variables,
    }
    with tempfile.TemporaryDirectory() as directory:
        asked, answered = Path(directory, "question.json"), Path(directory, "answer.json")
        asked.write_text(json.dumps(question, default=operator.index))
        log = said or Path(directory, "said.txt")
        # -P: the current directory is not where its modules come from.
        command = [sys.executable, "-P", "-m", module, asked, answered, str(os.getpid())]
        with open(log, "ab") as out:
            before = out.tell()
            done = subprocess.run(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        answer = json.loads(answered.read_text()) if answered.exists() else {}
        return answer, _ending(done.returncode, log.read_bytes()[before:].decode(errors="replace"))


def _ending(code: int, said: str) -> str:
    """How a process ended that gave no answer."""
    if code == -signal.SIGKILL:
        return "killed (signal 9), as a system does where memory runs out"
    lines = said.strip().splitlines()
    why = [line for line in lines if SAYS_WHY.search(line)]
    return (why or lines or [f"exit code {code}"])[-1]


def end_with(parent: int, *, whole_group: bool = False) -> None:
    """End this process when another is its parent no more, or it and its whole group.

    A process that is killed cannot end those that it has started, and they would hold the device.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os.kill(0 if whole_group else os.getpid(), signal.SIGKILL)  # 0: the group

    threading.Thread(target=watch, daemon=True).start()
