"""One size of program, so that tests share what is compiled: vary what is traced, not this."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SIZES: Any = {"num_envs": 4, "rollout_length": 8, "total_steps": 4 * 8 * 12}
SIZES |= {"hidden": (8,)}
SEEDS = 4
EPISODES = 2

OPTIONS = [  # the same on the command line
    *("--num-envs", "4", "--rollout-length", "8", "--total-steps", str(4 * 8 * 12)),
    *("--hidden", "8", "--seeds", str(SEEDS), "--evaluation-episodes", str(EPISODES)),
]


class Choice(NamedTuple):
    which: int = 0
    max_steps_in_episode: float = 5
    reward_scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Several probes, of which `Choice.which` plays: one program for all of them."""

    envs: tuple[Any, ...]

    default_params = Choice()

    def observation_space(self, params):
        return self.envs[0].observation_space(params)

    def action_space(self, params):
        return self.envs[0].action_space(params)

    def reset(self, key, params):
        obs, states = zip(*[env.reset(key, params) for env in self.envs], strict=True)
        return jnp.stack(obs)[params.which], states

    def step(self, key, state, action, params):
        steps = [
            env.step(key, each, action, params) for env, each in zip(self.envs, state, strict=True)
        ]
        obs, states, *rest = zip(*steps, strict=True)
        chosen = [jax.tree.map(lambda *x: jnp.stack(x)[params.which], *each) for each in rest]
        return jnp.stack(obs)[params.which], states, *chosen
