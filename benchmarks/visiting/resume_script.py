"""A run whole, one that is interrupted, and what the latter comes to: a digest of each.

python benchmarks/visiting/resume_script.py begin DIRECTORY SEEDS
python benchmarks/visiting/resume_script.py resume DIRECTORY SEEDS
"""

import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import purerl
from purerl.checks import is_typed_key

SIZES: Any = {"num_envs": 16, "rollout_length": 128}
TINY: Any = {"num_envs": 4, "rollout_length": 16, "hidden": (8,)}
FEW = 4  # seeds, of a rehearsal
UPDATES, CHUNK, STOP = 24, 4, 8


def digest(run: purerl.Run) -> str:
    """SHA-256 of all states and metrics."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves((run.states, run.metrics)):
        data = jax.random.key_data(leaf) if is_typed_key(leaf) else leaf
        found.update(np.asarray(data).tobytes())
    return found.hexdigest()


def main() -> None:
    step, directory, seeds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if step == "resume":
        print("resumed", digest(purerl.resume(directory, progress=False)))
        return
    sizes = SIZES if seeds > FEW else TINY
    steps = UPDATES * sizes["num_envs"] * sizes["rollout_length"]
    config = purerl.preset("CartPole-v1", "vpg", **sizes, total_steps=steps)
    whole = directory.with_name(f"{directory.name}-whole")
    for folder in (directory, whole):
        shutil.rmtree(folder, ignore_errors=True)
    how: Any = {"updates_per_chunk": CHUNK, "evaluation_episodes": 0, "progress": False}
    print("whole", digest(purerl.run(config, seeds, whole, **how)))

    def stop(chunk: purerl.Chunk) -> None:
        if chunk.updates == STOP:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        purerl.run(config, seeds, directory, hooks=[stop], **how)
    except purerl.Stopped as stopped:
        print("stopped", str(stopped).split(";")[0].replace(" ", "-"))


if __name__ == "__main__":
    main()
