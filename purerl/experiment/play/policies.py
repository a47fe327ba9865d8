"""Policies that leave a run: one file with the weights, the statistics and how to build it.

The file is NumPy's npz, read without pickle: nothing in it is executed.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purerl import __version__
from purerl.checks import require_seed
from purerl.config.config import Config
from purerl.envs import Box, Discrete, Space
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import damage, newest, restore
from purerl.experiment.store.directory import in_use, read_header
from purerl.experiment.store.fingerprint import describe, digest, shapes
from purerl.experiment.store.header import as_json, differences, env_name, list_differences
from purerl.experiment.store.rebuild import NotNamedError, rebuild_plug
from purerl.experiment.store.spec import RunPlan, plan_of
from purerl.networks.network import Carried, carried
from purerl.networks.normalization import no_stats
from purerl.training import TrainState

ATTEMPTS = 3  # to read a checkpoint that is not removed meanwhile


def save_policy(path: str | Path, policy: Carried, config: Config) -> None:
    """Write a policy, the statistics that it normalises with, and what is needed to rebuild it."""
    spec = config.env_spec
    header = {
        "purerl": __version__,
        "env": env_name(config),
        "policy": describe(config.policy),
        "normalize_obs": policy.stats is not None,
        "obs_space": _described(spec.obs_space),
        "action_space": _described(spec.action_space),
    }
    arrays = {f"array_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(policy))}
    for name, space in (("obs", spec.obs_space), ("action", spec.action_space)):
        if isinstance(space, Box):
            arrays |= {f"{name}_low": np.asarray(space.low), f"{name}_high": np.asarray(space.high)}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    files.write_arrays(Path(path), {"header": text, **arrays})


def load_policy(path: str | Path, seed: int | None = None, config: Config | None = None) -> Carried:
    """A trained policy, from a file that `purerl export` wrote or from a run directory.

    It is called on one observation and gives a distribution: `policy(obs).mode()`.

    **Arguments:** `seed` is needed for a run directory; `config` where the network is the user's
    own, or of a run directory the environment or the loss.

    **Raises:** `ValueError` where there is none, the file is damaged, or `config` is needed or does
    not fit.
    """
    path = Path(path)
    if path.is_dir():
        plan, states, _ = load_states(path, config)
        return policy_of(plan, states, seed)
    try:
        arrays = files.read_arrays(path)
        header = json.loads(arrays["header"].tobytes())
        obs_space = _space(header["obs_space"], arrays, "obs")
        action_space = _space(header["action_space"], arrays, "action")
    except FileNotFoundError:
        raise ValueError(f"path = {str(path)!r} is not there.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"path = {str(path)!r} is no policy, or damaged: {reason}.") from error
    try:
        factory = rebuild_plug("policy", header["policy"]) if config is None else config.policy
    except NotNamedError as error:
        raise ValueError(
            f"the network in {str(path)!r} is not purerl's own; give the config with its factory."
        ) from error
    return _rebuilt(factory, obs_space, action_space, header["normalize_obs"], arrays)


def _rebuilt(
    factory: Any, obs_space: Space, action_space: Space, normalize_obs: bool, arrays: dict[str, Any]
) -> Carried:
    def build(key):
        stats = no_stats(obs_space.shape) if normalize_obs else None
        return carried(factory(key, obs_space, action_space), stats)

    shapes = jax.eval_shape(build, jax.eval_shape(lambda: jax.random.key(0)))
    leaves, structure = jax.tree.flatten(shapes)
    count = sum(name.startswith("array_") for name in arrays)
    values = [arrays.get(f"array_{i}") for i in range(len(leaves))]
    for leaf, value in zip(leaves, values, strict=True):
        if (
            value is None
            or count != len(leaves)
            or (value.shape, value.dtype) != (leaf.shape, leaf.dtype)
        ):
            raise ValueError(
                f"the weights do not fit the network: {count} arrays, not {len(leaves)}, or of "
                f"other shapes; give the config that the policy was trained with."
            )
    return jax.tree.unflatten(structure, [jax.numpy.asarray(value) for value in values])


def load_states(
    directory: Path, config: Config | None = None, env: Any = None
) -> tuple[RunPlan, TrainState, int]:
    """The plan of a run, the states of all its agents in its newest checkpoint, and its updates.

    The run may be training meanwhile: where it removes the checkpoint that is being read, the next
    is taken.

    **Raises:** `ValueError` where there is none, `config` is needed, or what is given is another.
    """
    training = in_use(directory)
    for _ in range(ATTEMPTS):
        updates = newest(directory, warn=not training)  # the one being written is no damage
        if updates is None:
            break
        try:
            header = read_header(directory, updates)
            plan = plan_of(header, config, env)
            if config is not None or env is not None:
                plan = _require_given(header, plan, "env" if config is None else "config")
            return plan, restore(directory, updates, plan.state_shapes()), updates
        except Exception:
            if damage(directory, updates, records=False) is None:
                raise  # nobody removes it, file by file: it is something else
    raise ValueError(
        f"{str(directory)!r} holds no checkpoint; train first: purerl train --directory {directory}"
    )


def _require_given(header: dict[str, Any], plan: RunPlan, given: str) -> RunPlan:
    """Refuse a config or an environment with which the run was not trained; of any budget."""
    num_updates = header["config"]["num_updates"]
    plan = dataclasses.replace(
        plan, config=dataclasses.replace(plan.config, num_updates=num_updates)
    )
    changed = differences(header["config"], as_json(describe(plan.config)))
    if not changed and header["shapes"] != digest(shapes(plan.config)):
        changed = ["the shapes of its states"]
    if changed:
        raise ValueError(
            f"{given} is not that of the run, which differs: {list_differences(changed)}; give the "
            f"{given} that it was trained with."
        )
    return plan


def policy_of(plan: RunPlan, states: TrainState, seed: int | None) -> Carried:
    """The policy of one seed.

    **Raises:** `ValueError` where the run has no such seed.
    """
    index = require_seed(seed, plan.seed_ids)
    return jax.tree.map(lambda leaf: leaf[index], states.learner.policy)


def _described(space: Space) -> dict[str, Any]:
    if isinstance(space, Discrete):
        return {"discrete": space.n}
    return {"box": list(space.shape)}


def _space(described: dict[str, Any], arrays: dict[str, Any], name: str) -> Space:
    if "discrete" in described:
        return Discrete(described["discrete"])
    return Box(arrays[f"{name}_low"], arrays[f"{name}_high"], tuple(described["box"]))
