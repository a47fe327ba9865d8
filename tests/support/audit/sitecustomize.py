"""Tells what a process touches: on the path of a process, it writes a line of JSON for each deed.

`AUDIT_LOG` names the file; without it nothing is told.
"""

import json
import os
import sys

LOG = os.environ.get("AUDIT_LOG")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "os.forkpty")


def told(event, args):
    """What an event is, and of which file or address; None for what harms nobody."""
    if event == "exec":
        return "runs", getattr(args[0], "co_filename", "?")
    if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        writes = args[2] & WRITING if isinstance(args[2], int) else True
        return ("writes", os.fspath(args[0])) if writes else None
    if event in CHANGES:
        return "writes", args[1] if event in ("os.rename", "os.link", "os.symlink") else args[0]
    if event in STARTS:
        return "starts", args[0]
    return ("sends", args[-1]) if event in ("socket.connect", "socket.sendto") else None


def watch(log):
    def hook(event, args):
        deed = told(event, args)
        if deed is not None:
            kind, what = deed
            if isinstance(what, bytes):
                what = os.fsdecode(what)
            if isinstance(what, str) and kind in ("runs", "writes") and not what.startswith("<"):
                what = os.path.join(os.path.realpath(os.path.dirname(what)), os.path.basename(what))
            os.write(log, json.dumps([kind, str(what)]).encode() + b"\n")

    sys.addaudithook(hook)


if LOG is not None:
    watch(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
