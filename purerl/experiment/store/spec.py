"""The decisions that make up a run: checked, written into its header, and read back from it."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from purerl.checks import (
    ceil_div,
    require_divisor,
    require_positive_int,
    short_repr,
    speaks_to_a_shell,
)
from purerl.config.config import Config, with_updates
from purerl.config.schedules import share_at
from purerl.experiment.hosts.memory import host_bytes, require_bytes, tree_bytes
from purerl.experiment.hosts.sizes import require_room
from purerl.experiment.store.header import make_header
from purerl.experiment.store.identity import Identity
from purerl.experiment.store.rebuild import NotRebuildableError, rebuild_config
from purerl.seeds import is_root_seed, seed_keys
from purerl.training import TrainState, init

CHUNKS = 30  # of a run, at most, without `updates_per_chunk`


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """A run as decided: what its result depends on besides the machine, and what it keeps."""

    config: Config
    root: int
    seed_ids: tuple[int, ...]
    updates_per_chunk: int
    seed_batch: int | None
    evaluation_episodes: int
    evaluate_every: int | None = None
    target_return: float | None = None
    mesh: dict[str, int] | None = None  # axes of the devices; None: seeds over all of them
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    hooks: Sequence[dict[str, Any]] = ()  # as `describe_hooks` describes them
    run: str = ""  # its id: random, made at its start
    resumptions: int = 0  # how often it has gone on
    provenance: Sequence[dict[str, Any]] = ()  # as `extend_provenance` lists them

    @classmethod
    def from_header(
        cls, header: dict[str, Any], config: Config | None = None, env: Any = None
    ) -> "RunSpec":
        """Read a run back from its header.

        **Raises:** `ValueError` where that takes `config`, for something of the user's own.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"config", "seed_ids"}
        fields: dict[str, Any] = {name: header[name] for name in names}
        return cls(
            config=_rebuilt_config(header, env) if config is None else config,
            seed_ids=tuple(header["seeds"]),
            **fields,
        )

    def header(self) -> dict[str, Any]:
        """The header of the run directory: this run and the machine."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        config, root, seed_ids = (fields.pop(name) for name in ("config", "root", "seed_ids"))
        del fields["run"], fields["resumptions"]
        return make_header("run", config, root, seed_ids, self.identity, **fields)

    @property
    def identity(self) -> Identity:
        """What stands in every file of the run."""
        return Identity(self.run, self.resumptions)

    @property
    def evaluates(self) -> bool:
        """Whether evaluation episodes are played: there are some, and they end."""
        return bool(self.evaluation_episodes) and self.config.time_limit is not None

    @property
    def intervals(self) -> dict[str, int]:
        """The options that say after how many updates something happens between chunks."""
        options = {"evaluate_every": self.evaluate_every, "checkpoint_every": self.checkpoint_every}
        return {name: every for name, every in options.items() if every is not None}

    def evaluates_at(self, updates: int) -> bool:
        """Whether evaluation episodes are played after so many updates."""
        is_due = self.evaluate_every is not None and updates % self.evaluate_every == 0
        return self.evaluates and (is_due or updates == self.config.num_updates)

    def state_shapes(self) -> TrainState:
        """Shapes and dtypes of the states of all agents.

        **Raises:** `ValueError` where the host has no room for them.
        """
        keys = jax.eval_shape(lambda: seed_keys(self.root, self.seed_ids))
        shapes = jax.eval_shape(jax.vmap(lambda key: init(key, self.config)), keys)
        states = f"the states of {len(self.seed_ids)} seeds with num_envs = {self.config.num_envs}"
        require_bytes(states, tree_bytes(shapes), host_bytes(), "use a larger machine")
        return shapes

    def require_room(self, execution: "ExecutionOptions") -> None:
        """Refuse what is larger than the memory, by counting."""
        require_room(
            self.config,
            self.seed_ids,
            episodes=self.evaluation_episodes if self.evaluates else 0,
            memory_limit=execution.memory_limit,
            mesh=execution.mesh,
        )

    def check(self, execution: "ExecutionOptions") -> None:
        """Refuse bad counts, intervals that end within a record, and options without effect."""
        if not is_root_seed(self.root):
            raise ValueError(f"root = {short_repr(self.root)} must be an int from 0 to 2**32 - 1.")
        target = self.target_return
        is_number = isinstance(target, int | float | np.number) and not isinstance(target, bool)
        if target is not None and not (is_number and np.isfinite(target)):
            raise ValueError(f"target_return = {short_repr(target)} must be a finite number.")
        counts = {"seed_batch": self.seed_batch, "memory_limit": execution.memory_limit}
        if self.evaluation_episodes:
            counts = {"evaluation_episodes": self.evaluation_episodes, **counts}
        for name, count in counts.items():
            if count is not None:
                require_positive_int(name, count)
        for name, interval in self.intervals.items():
            require_positive_int(name, interval)
            record = self.config.log_every
            if interval % record:
                raise ValueError(
                    f"{name} = {interval} is not a multiple of log_every = {record}: it would end "
                    f"within a record; use {ceil_div(interval, record) * record}."
                )
        if self.evaluate_every and not self.evaluates:
            raise ValueError(
                f"evaluate_every = {self.evaluate_every} has no effect without "
                f"evaluation_episodes, or without a time limit; leave it out."
            )
        require_positive_int("keep_checkpoints", self.keep_checkpoints)
        if self.keep_checkpoints < 2:
            raise ValueError(
                "keep_checkpoints = 1 must be at least 2: one is whole while another is written."
            )

    def with_budget(self, total_steps: int, start: int) -> "RunSpec":
        """Change the budget after `start` updates; warn if schedules change."""
        require_positive_int("total_steps", total_steps)
        config = self.config
        num_updates = ceil_div(int(total_steps), config.env_steps_per_update)
        if num_updates < start:
            raise ValueError(
                f"total_steps = {total_steps} is less than the "
                f"{start * config.env_steps_per_update} that are trained already; use more."
            )
        replaced = with_updates(config, num_updates)
        if config.schedule and num_updates != config.num_updates:
            warnings.warn(
                f"the schedule now runs over {num_updates} updates instead of "
                f"{config.num_updates}: at update {start} "
                f"{_scheduled_shares(config, start, num_updates)} of the first value.",
                stacklevel=3,
            )
        return dataclasses.replace(self, config=replaced)


@dataclasses.dataclass(frozen=True)
class ExecutionOptions:
    """How a process carries a run out: what its header need not say, or says in another form."""

    memory_limit: int | None = None
    stop_on_nan: bool = False
    hooks: Sequence[Callable[..., Any]] = ()
    progress: bool = True
    mesh: Mesh | None = None


def choose_chunk_length(config: Config, updates_per_chunk: int | None) -> int:
    """Check the updates of one chunk, or choose a thirtieth of all, in whole records.

    The choice depends on the config alone: another chunk is another program, with other bits.
    """
    if updates_per_chunk is None:
        return ceil_div(config.num_records, CHUNKS) * config.log_every
    require_positive_int("updates_per_chunk", updates_per_chunk)
    require_divisor("log_every", config.log_every, "updates_per_chunk", updates_per_chunk)
    return int(updates_per_chunk)


def _scheduled_shares(config: Config, start: int, num_updates: int) -> str:
    """The share of its first value that each scheduled hyperparameter has, before and after."""

    def share(shape: str, num_updates: int) -> float:
        return float(share_at(shape, jnp.int32(start), num_updates))

    return ", ".join(
        f"{name} goes from {share(shape, config.num_updates):.3g} to "
        f"{share(shape, num_updates):.3g}"
        for name, shape in config.schedule
    )


def _how_to_give(part: str) -> str:
    """How to give a part of a config that a header cannot hold."""
    if not speaks_to_a_shell():
        return f"give {'env= or ' * (part == 'env')}config=, the config that it was made with"
    if part == "env":
        return "give --env package.module:Name"
    return "in Python, give config=, the config that it was made with"


def _rebuilt_config(header: dict[str, Any], env: Any) -> Config:
    """Rebuild the config of a header, with `env` where the environment is the user's own."""
    try:
        return rebuild_config(header["config"], header["asked"], header["env"], env)
    except NotRebuildableError as error:
        if env is not None and str(error) == "env_params":
            raise ValueError(
                f"env = {type(env).__name__} does not have the parameters of {header['env']}, "
                f"with which the run was trained; give that."
            ) from error
        raise ValueError(
            f"{error} of this run is not purerl's or gymnax's own, and is not stored; "
            f"{_how_to_give(str(error))}."
        ) from error
    except (
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError("the config of this run is not one that purerl has written.") from error
