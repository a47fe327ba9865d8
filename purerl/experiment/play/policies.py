"""Saves and loads policies: from a file of their own, or from the checkpoint of a run.

The file is NumPy's npz, read without pickle: nothing in it is executed.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purerl import __version__
from purerl.checks import first_line, seed_index
from purerl.config.config import Config, with_updates
from purerl.envs import Box, Discrete, Space, action_space
from purerl.experiment.store import files
from purerl.experiment.store.checkpoints import (
    find_damage,
    has_checkpoints,
    latest_checkpoint,
    restore_states,
)
from purerl.experiment.store.directory import is_in_use, read_header
from purerl.experiment.store.files import CorruptFileError
from purerl.experiment.store.fingerprint import describe, describe_state, short_hash
from purerl.experiment.store.header import diff, env_name, format_diff, through_json
from purerl.experiment.store.identity import Identity, require_readable, with_defaults
from purerl.experiment.store.own_files import require_writable
from purerl.experiment.store.paths import as_directory, resume_command, shown
from purerl.experiment.store.rebuild import NotRebuildableError, rebuild_component
from purerl.experiment.store.spec import RunSpec
from purerl.networks.network import Network, TrainedPolicy, as_network
from purerl.networks.normalization import initial_stats
from purerl.training import TrainState

POLICY_FORMAT = 3  # of an exported file; it moves where older ones can no longer be read
ATTEMPTS = 3  # to read a checkpoint, which training may remove meanwhile


def save_policy(
    path: str | Path,
    policy: Network | TrainedPolicy,
    config: Config,
    *,
    identity: Identity | None = None,
) -> None:
    """Write a policy to a file: its weights, its statistics, and what it takes to rebuild it.

    **Arguments:** `identity` is that of the run that it is from, `run.identity`.

    **Raises:** `ValueError` where the file cannot be written, or is a run's own.
    """
    require_writable("path", Path(path))
    network = policy.network if isinstance(policy, TrainedPolicy) else policy
    spaces = {
        "obs": config.env_spec.obs_space,
        "action": action_space(config.env, config.env_params),
    }
    whose = {} if identity is None else identity._asdict()
    header = {
        **whose,
        "format": POLICY_FORMAT,
        "purerl": __version__,
        "env": env_name(config),
        "policy": describe(config.policy),
        "normalize_obs": network.stats is not None,
        **{f"{name}_space": _describe_space(space) for name, space in spaces.items()},
    }
    arrays = {f"array_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(network))}
    for name, space in spaces.items():
        if isinstance(space, Box):
            arrays |= {f"{name}_low": np.asarray(space.low), f"{name}_high": np.asarray(space.high)}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    files.write_arrays(Path(path), {"header": text, **arrays})


def load_policy(
    path: str | Path, seed: int | None = None, config: Config | None = None
) -> TrainedPolicy:
    """Load a trained policy, from a file that `purerl export` wrote or from a run directory.

    `policy.act(obs)` is the action to send to the environment.

    **Arguments:** a run directory needs `seed`. It needs `config` where the network, the
    environment or the loss is the user's own; a file only where the network is.

    **Raises:** `ValueError` where there is no policy, the file is damaged, or `config` is needed or
    does not fit.
    """
    if Path(path).is_dir():
        return LoadedRun.read(path, config).policy(seed)
    path = Path(path)
    try:
        arrays = files.read_arrays(path)
        header = dict(json.loads(arrays["header"].tobytes()))
    except FileNotFoundError:
        raise ValueError(f"path = {str(path)!r} is not there.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_a_policy(path, error) from error
    require_readable(f"the policy in {str(path)!r}", header, POLICY_FORMAT)
    try:
        header = with_defaults(f"the policy in {str(path)!r}", "policy", header)
        obs_space = _rebuild_space(header["obs_space"], arrays, "obs")
        actions = _rebuild_space(header["action_space"], arrays, "action")
    except (CorruptFileError, ValueError, KeyError, TypeError) as error:
        raise _not_a_policy(path, error) from error
    try:
        factory = rebuild_component("policy", header["policy"]) if config is None else config.policy
    except NotRebuildableError as error:
        raise ValueError(
            f"the network in {str(path)!r} is not purerl's own; give the config with its factory."
        ) from error
    units = actions.in_units if isinstance(actions, Box) else actions
    network = _restore_network(factory, obs_space, units, header["normalize_obs"], arrays)
    return TrainedPolicy(network, actions)


def _not_a_policy(path: Path, error: Exception) -> ValueError:
    return ValueError(f"path = {str(path)!r} is no policy, or damaged: {first_line(error)}.")


def _restore_network(
    factory: Any, obs_space: Space, action_space: Space, normalize_obs: bool, arrays: dict[str, Any]
) -> Network:
    def build(key):
        stats = initial_stats(obs_space.shape) if normalize_obs else None
        return as_network(factory(key, obs_space, action_space), stats)

    shapes = jax.eval_shape(build, jax.eval_shape(lambda: jax.random.key(0)))
    leaves, structure = jax.tree.flatten(shapes)
    count = sum(name.startswith("array_") for name in arrays)
    values = [arrays.get(f"array_{i}", np.empty(0)) for i in range(count)]
    if [(x.shape, x.dtype) for x in values] != [(x.shape, x.dtype) for x in leaves]:
        raise ValueError(
            f"the weights do not fit the network: {len(values)} arrays, not {len(leaves)}, or of "
            f"other shapes; give the config that the policy was trained with."
        )
    return jax.tree.unflatten(structure, [jax.numpy.asarray(value) for value in values])


class LoadedRun(NamedTuple):
    """The newest checkpoint of a run: the states of all agents, and how many updates they had."""

    spec: RunSpec
    states: TrainState
    updates: int

    @classmethod
    def read(
        cls, directory: str | Path, config: Config | None = None, env: Any = None
    ) -> "LoadedRun":
        """Read the newest checkpoint of a run, which may be training meanwhile.

        Where training removes the checkpoint that is being read, the next one is read.

        **Raises:** `ValueError` where there is none, `config` is needed, or the run was trained
        with another config or environment.
        """
        directory = as_directory(directory)
        header = read_header(directory)
        is_training = is_in_use(directory)
        for _ in range(ATTEMPTS):
            updates = latest_checkpoint(directory, warn=not is_training)  # one may be half written
            if updates is None:
                break
            try:
                spec = RunSpec.from_header(header, config, env)
                if config is not None or env is not None:
                    spec = _require_given(header, spec, "env" if config is None else "config")
                return cls(spec, restore_states(directory, updates, spec.state_shapes()), updates)
            except Exception:
                if find_damage(directory, updates, records=False) is None:
                    raise  # the checkpoint is whole: the error is another
        raise ValueError(f"{shown(directory)!r} holds no checkpoint; {_way_to_one(directory)}")

    def policy(self, seed: int | None) -> TrainedPolicy:
        """The policy of one seed.

        **Raises:** `ValueError` where the run has no such seed.
        """
        index = seed_index(seed, self.spec.seed_ids)
        network = jax.tree.map(lambda leaf: leaf[index], self.states.learner.policy)
        config = self.spec.config
        return TrainedPolicy(network, action_space(config.env, config.env_params))


def _way_to_one(directory: Path) -> str:
    """How to come to a checkpoint where there is none that is sound."""
    has_result = any((directory / name).exists() for name in (files.SUMMARY, files.METRICS))
    if has_result or has_checkpoints(directory):
        return f"to train it anew: {resume_command(directory, force=True)}"
    return f"go on with it: {resume_command(directory)}"


def _require_given(header: dict[str, Any], spec: RunSpec, given: str) -> RunSpec:
    """Refuse a config or an environment that the run was not trained with, but for the budget."""
    config = with_updates(spec.config, header["config"]["num_updates"])
    spec = dataclasses.replace(spec, config=config)
    changed = diff(header["config"], through_json(describe(config)))
    if not changed and header["shapes"] != short_hash(describe_state(config)):
        changed = ["the shapes of its states"]
    if changed:
        raise ValueError(
            f"{given} is not that of the run, which differs: {format_diff(changed)}; give the "
            f"{given} that it was trained with."
        )
    return spec


def _describe_space(space: Space) -> dict[str, Any]:
    return {"discrete": space.n} if isinstance(space, Discrete) else {"box": list(space.shape)}


def _rebuild_space(described: dict[str, Any], arrays: dict[str, Any], name: str) -> Space:
    if "discrete" in described:
        return Discrete(described["discrete"])
    return Box(arrays[f"{name}_low"], arrays[f"{name}_high"], tuple(described["box"]))
