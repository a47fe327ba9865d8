"""purerl with a preset and some of its own numbers changed, as a worker that trains when told to.

python benchmarks/visiting/trainer.py '{"algo": "vpg", "num_envs": 64, ..., "patches": {}}'
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contenders import env_steps, serve


def make_train(work: dict[str, Any]) -> Callable[[int], Callable[[], int]]:
    """`train_seeds` of the preset of this work."""
    for place, value in work["patches"].items():
        module, name = place.split(":")
        found = importlib.import_module(module)
        getattr(found, name)
        setattr(found, name, value)

    import jax
    import numpy as np

    import purerl

    sizes = {name: work[name] for name in ("num_envs", "rollout_length")}
    config = purerl.preset(work["env"], work["algo"], **sizes, total_steps=env_steps(work))

    def train(root: int) -> Callable[[], int]:
        keys = purerl.seed_keys(root, work["seeds"])
        states, _ = jax.block_until_ready(purerl.train_seeds(keys, config))
        return lambda: int(np.asarray(states.step).max()) * config.env_steps_per_update

    return train


if __name__ == "__main__":
    work = json.loads(sys.argv[1])
    serve("purerl", make_train, work)
