"""One trainer that does a given amount of PPO's work whenever it is told to.

`peers.py` starts this file once for each trainer, in the environment where that trainer is
installed, and keeps it alive: a line on the standard input is one training from scratch, a line of
JSON on the standard output is how long it took. The first one compiles.

    python benchmarks/contenders.py rejax '{"num_envs": 4, "rollout_length": 128, ...}'
"""

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Train = Callable[[int], Callable[[], int]]
"""Trains with a root seed until all is computed; what it returns counts the env steps of a seed."""

LEARNING_RATE = 1e-3
DISCOUNT = 0.99
GAE_LAMBDA = 0.95
CLIP_EPS = 0.2
ENTROPY_COEF = 0.01
MAX_GRAD_NORM = 0.5
EPOCHS = 4
MINIBATCHES = 4
HIDDEN = (64, 64)


def env_steps(work: dict[str, int]) -> int:
    """The environment steps of one seed in one training."""
    return work["num_envs"] * work["rollout_length"] * work["updates"]


def even_devices(seeds: int, cores: int) -> int:
    """The most devices, of no more than the cores, over which seeds are cut evenly."""
    return max(count for count in range(1, min(seeds, cores) + 1) if seeds % count == 0)


def purerl_config(work: dict[str, int], env: Any = "CartPole-v1") -> Any:
    """PPO's config of this work."""
    import purerl

    return purerl.ppo(
        env,
        num_envs=work["num_envs"],
        rollout_length=work["rollout_length"],
        total_steps=env_steps(work),
        policy_learning_rate=LEARNING_RATE,
        baseline_learning_rate=LEARNING_RATE,
        discount=DISCOUNT,
        gae_lambda=GAE_LAMBDA,
        clip_eps=CLIP_EPS,
        clip_value=True,
        entropy_coef=ENTROPY_COEF,
        max_grad_norm=MAX_GRAD_NORM,
        epochs=EPOCHS,
        num_minibatches=MINIBATCHES,
        hidden=HIDDEN,
        schedule={},
    )


def purerl(work: dict[str, int]) -> Train:
    """`purerl.train_seeds`, on as many devices as `JAX_NUM_CPU_DEVICES` says."""
    import jax
    import numpy as np

    import purerl

    config = purerl_config(work)

    def train(root: int) -> Callable[[], int]:
        keys = purerl.seed_keys(root, work["seeds"])
        states, _ = jax.block_until_ready(purerl.train_seeds(keys, config))
        per_update = work["num_envs"] * work["rollout_length"]
        return lambda: int(np.asarray(states.step).min()) * per_update

    return train


def rejax(work: dict[str, int]) -> Train:
    """`jit(vmap(train))`, as its documentation has it, without evaluation."""
    import jax

    train_seeds = jax.jit(jax.vmap(rejax_algorithm(work).train))

    def train(root: int) -> Callable[[], int]:
        keys = jax.random.split(jax.random.PRNGKey(root), work["seeds"])
        state, _ = jax.block_until_ready(train_seeds(keys))
        return lambda: int(state.global_step.min())

    return train


def rejax_pmap(work: dict[str, int]) -> Train:
    """`pmap(vmap(train))`, the seeds cut evenly over the devices, without evaluation."""
    import jax

    devices = even_devices(work["seeds"], jax.local_device_count())
    train_seeds = jax.pmap(jax.vmap(rejax_algorithm(work).train))

    def train(root: int) -> Callable[[], int]:
        keys = jax.random.split(jax.random.PRNGKey(root), work["seeds"])
        state, _ = jax.block_until_ready(train_seeds(keys.reshape(devices, -1, 2)))
        return lambda: int(state.global_step.min())

    return train


def rejax_algorithm(work: dict[str, int]) -> Any:
    """rejax's PPO of this work, whose evaluation computes nothing."""
    from rejax import PPO  # pyright: ignore[reportMissingImports]

    steps = env_steps(work)
    algorithm = PPO.create(
        env="CartPole-v1",
        agent_kwargs={"hidden_layer_sizes": HIDDEN, "activation": "tanh"},
        num_envs=work["num_envs"],
        num_steps=work["rollout_length"],
        total_timesteps=steps,
        learning_rate=LEARNING_RATE,
        gamma=DISCOUNT,
        gae_lambda=GAE_LAMBDA,
        clip_eps=CLIP_EPS,
        ent_coef=ENTROPY_COEF,
        max_grad_norm=MAX_GRAD_NORM,
        num_epochs=EPOCHS,
        num_minibatches=MINIBATCHES,
        normalize_observations=False,
        eval_freq=steps,
        skip_initial_evaluation=True,
    )
    # Its evaluation is a callback that one may replace; this one computes nothing.
    return algorithm.replace(eval_callback=lambda algorithm, state, key: ())


def sb3(work: dict[str, int]) -> Train:
    """Stable-Baselines3 on `DummyVecEnv`: one seed, with the number of threads that suits it."""
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]

    def train(root: int) -> Callable[[], int]:
        model = PPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", n_envs=work["num_envs"], seed=root),
            n_steps=work["rollout_length"],
            batch_size=work["num_envs"] * work["rollout_length"] // MINIBATCHES,
            n_epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            gamma=DISCOUNT,
            gae_lambda=GAE_LAMBDA,
            clip_range=CLIP_EPS,
            clip_range_vf=CLIP_EPS,
            ent_coef=ENTROPY_COEF,
            max_grad_norm=MAX_GRAD_NORM,
            policy_kwargs={"net_arch": list(HIDDEN), "activation_fn": torch.nn.Tanh},
            device="cpu",
            seed=root,
        )
        model.learn(env_steps(work))
        return lambda: model.num_timesteps

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        train(0)
        start = time.perf_counter()
        train(0)
        return time.perf_counter() - start

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(min(range(1, (cores or 1) + 1), key=seconds))
    return train


CONTENDERS: dict[str, Callable[[dict[str, int]], Train]] = {
    "purerl": purerl,
    "purerl-one-device": purerl,
    "rejax": rejax,
    "rejax-pmap": rejax_pmap,
    "sb3": sb3,
}
PACKAGES = ("jax", "gymnax", "rejax", "flax", "optax", "stable-baselines3", "torch", "gymnasium")


def versions() -> dict[str, str]:
    """What is installed here of what a trainer stands on."""
    installed = {dist.metadata["Name"].lower(): dist for dist in importlib.metadata.distributions()}
    names = {name: name.replace("-", "_") for name in PACKAGES}
    found = {name: installed.get(name) or installed.get(other) for name, other in names.items()}
    return {name: dist.version for name, dist in found.items() if dist is not None}


def serve(name: str, make: Callable[[dict[str, Any]], Train], work: dict[str, Any]) -> None:
    """Train for each line on the standard input, and answer with a line of JSON."""
    # Whatever a trainer prints is not the answer.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    train = make(work)
    home = None
    if name.startswith("purerl"):
        import purerl as package

        home = str(Path(package.__file__).parents[1])
    answer(versions=versions(), home=home)
    for root, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        count = train(root)
        seconds = time.perf_counter() - start
        trained = count()
        if trained != env_steps(work):
            raise RuntimeError(f"{name} trained {trained} env steps, not {env_steps(work)}.")
        answer(seconds=seconds, env_steps=trained * work["seeds"])


if __name__ == "__main__":
    serve(sys.argv[1], CONTENDERS[sys.argv[1]], json.loads(sys.argv[2]))
