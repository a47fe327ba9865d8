"""What holds on a CPU by test, and has to hold on a GPU: agreement, independence, resuming."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from visiting import turns
from visiting.stage import Context, Part

import purerl
from purerl.compute.mapping import map_seeds
from purerl.compute.mesh import make_mesh
from purerl.measuring.floors import Updates

# Nine in ten parameters may differ by a hundredth of what one update of VPG's preset moves them,
# 4 steps of 3e-3 or so; sums in another order make no more of it.
TOLERANCE = 1e-4
SCRIPT = Path(__file__).with_name("resume_script.py")


def vpg(context: Context, updates: int) -> Any:
    """VPG's preset, for a few updates."""
    sizes = context.pick({}, {"num_envs": 4, "rollout_length": 16, "hidden": (8,)})
    per_update = purerl.preset("CartPole-v1", "vpg", **sizes).env_steps_per_update
    return purerl.preset("CartPole-v1", "vpg", **sizes, total_steps=updates * per_update)


def difference(found: Any, expected: Any) -> dict[str, Any]:
    """How far the learnt parameters and the first metrics of two results are apart."""
    learnt, metrics = zip(
        *((jax.tree.leaves(state.learner), metrics) for state, metrics in (found, expected)),
        strict=True,
    )
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(*learnt, strict=True)
    ]
    apart = np.concatenate([np.abs(a - b).ravel() for a, b in pairs])
    names = ("episode_return", "policy_loss", "value_loss", "entropy")
    values = {
        name: [float(np.nanmean(np.asarray(getattr(each, name))[..., 0])) for each in metrics]
        for name in names
    }
    typical, largest = float(np.quantile(apart, 0.9)), float(apart.max())
    is_close = typical <= TOLERANCE
    return {
        "parameters_apart": {"0.5": float(np.median(apart)), "0.9": typical, "1": largest},
        "first_metrics": values,
        "tolerance": TOLERANCE,
        "holds": is_close,
        "line": f"{'holds' if is_close else 'DOES NOT HOLD'}: nine in ten parameters within "
        f"{typical:.1e} of {TOLERANCE:.0e}, all within {largest:.1e}",
    }


def first_updates(context: Context) -> dict[str, Any]:
    """The first update here and on the CPU, with products in float32 proper."""
    config, keys = vpg(context, 1), purerl.seed_keys(0, context.pick(8, 2))
    found = {}
    for precision in ("default", "highest"):
        with jax.default_matmul_precision(precision):
            here, cpu = (
                jax.device_get(purerl.train_seeds(keys, config, mesh=make_mesh(devices[:1])))
                for devices in (jax.devices(), jax.devices("cpu"))
            )
        found[precision] = difference(here, cpu)
    return found | {"line": f"{found['highest']['line']}; by default {found['default']['line']}"}


def seed_alone(context: Context) -> dict[str, Any]:
    """The first update of a seed by itself, and among 64, with products in float32 proper."""
    config, many = vpg(context, 1), context.pick(64, 4)
    keys = purerl.seed_keys(0, many)
    with jax.default_matmul_precision("highest"):
        among = jax.device_get(purerl.train_seeds(keys, config))
        alone = jax.device_get(purerl.train_seeds(keys[3:4], config))
    return difference(alone, jax.tree.map(lambda leaf: leaf[3:4], among))


def frozen(context: Context) -> dict[str, Any]:
    """A seed whose policy is NaN is frozen, and the others end bitwise as without it."""
    config, keys = vpg(context, 3), purerl.seed_keys(0, context.pick(64, 4))
    states = map_seeds(purerl.init, keys, config)
    broken = jax.tree.map(
        lambda leaf: leaf.at[1].set(np.nan) if leaf.dtype == np.float32 else leaf,
        states.learner.policy,
    )
    poisoned = eqx.tree_at(lambda states: states.learner.policy, states, broken)
    ends = [
        jax.device_get(map_seeds(Updates(3), each, config, with_layout=True)[0].learner)
        for each in (states, poisoned)
    ]
    failed_at = np.asarray(map_seeds(Updates(3), poisoned, config, with_layout=True)[0].failed_at)
    others = np.arange(len(keys)) != 1
    same = all(
        np.array_equal(a[others], b[others], equal_nan=True)
        for a, b in zip(*map(jax.tree.leaves, ends), strict=True)
    )
    holds = same and failed_at[1] == 0 and bool(np.all(failed_at[others] == -1))
    word = "holds" if holds else "DOES NOT HOLD"
    return {
        "holds": bool(holds),
        "failed_at": failed_at.tolist(),
        "line": f"{word}: failed at {failed_at[1]}, the others bitwise equal: {same}",
    }


def resumed(flags: str) -> Any:
    """A run that is interrupted and resumed by another process, beside one that is not."""

    def work(context: Context) -> dict[str, Any]:
        directory = context.scratch / ("resumed" if flags else "resumed-plainly")
        environment = os.environ | {
            "XLA_FLAGS": " ".join(filter(None, (os.environ.get("XLA_FLAGS", ""), flags))),
            "JAX_ENABLE_COMPILATION_CACHE": "0",  # the compiler has to come to the same again
        }
        found = {}
        for step in ("begin", "resume"):
            command = [sys.executable, str(SCRIPT), step, str(directory), context.pick("64", "4")]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            print(done.stdout, done.stderr, flush=True)
            if done.returncode:
                raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
            found |= re.findall(r"^(whole|stopped|resumed) (\S+)$", done.stdout, re.MULTILINE)
        holds = "stopped" in found and found["whole"] == found["resumed"]
        word = "holds, bitwise" if holds else "DOES NOT HOLD"
        if "stopped" not in found:
            word += ": the run was not interrupted"
        return {"flags": flags, "digests": found, "holds": holds, "line": word}

    return work


def flags_cost(context: Context) -> dict[str, Any]:
    """How much speed the flags that make a run repeat itself cost."""
    return turns.compare_variant(
        context,
        turns.Variant("deterministic", turns.DETERMINISTIC),
        context.pick("vpg", "reinforce"),
    )


def in_process() -> Sequence[Part]:
    """The proofs that this process computes; they come after those of other processes."""
    return (
        Part("first update against the CPU's", 30.0, first_updates),
        Part("a seed alone and among others", 20.0, seed_alone),
        Part("a NaN seed frozen", 25.0, frozen),
    )
