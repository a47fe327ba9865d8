"""One size of program, so that tests share what is compiled: vary what is traced, not this."""

from typing import Any

SIZES: dict[str, Any] = {"num_envs": 4, "rollout_length": 8, "total_steps": 4 * 8 * 12}
SIZES |= {"hidden": (8,)}
SEEDS = 4
EPISODES = 2

OPTIONS = [  # the same on the command line
    *("--num-envs", "4", "--rollout-length", "8", "--total-steps", str(4 * 8 * 12)),
    *("--hidden", "8", "--seeds", str(SEEDS), "--evaluation-episodes", str(EPISODES)),
]
