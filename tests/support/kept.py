"""A saved run of this format, kept beside the tests; where reading changes, it is made anew:

python tests/support/kept.py
"""

import shutil
import sys
from pathlib import Path

KEPT = Path(__file__).parents[1] / "kept/run"


def make(directory):
    """Train it; its figures, which nothing reads, are left out."""
    from directories import EVERY
    from finished import train

    import purerl

    train(directory, **(EVERY | {"keep_checkpoints": 2}), seeds=2, hooks=[purerl.JsonLines()])
    for path in (*directory.glob("*.png"), directory / ".lock"):
        path.unlink()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    shutil.rmtree(KEPT, ignore_errors=True)
    make(KEPT)
