"""The options that several commands share, as the command line shows them."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from purerl.cli.words import Count, File, Folder, Number, Text, as_option, number
from purerl.config.settings import (
    ALGORITHM_DEFAULTS,
    OBJECT_SETTINGS,
    all_settings,
    default_of,
)

SHELL_SETTINGS = [name for name in all_settings() if name not in OBJECT_SETTINGS]


class GivenSettings:
    """The settings of a command, which are fields by name, as `preset` takes them."""

    NAMES: ClassVar[list[str]] = SHELL_SETTINGS

    def settings(self) -> dict[str, Any]:
        """Those that are given."""
        given = {name: getattr(self, name, None) for name in self.NAMES}
        given = {name: value for name, value in given.items() if value is not None}
        for name, example, kind in (
            ("schedule", "linear", str),
            ("env_params", "0.5", number),
        ):
            if name in given:
                given[name] = _by_name(name, given[name], example, kind)
        return given


def _by_name(option: str, texts: tuple[str, ...], example: str, kind: Any) -> dict[str, Any]:
    """Values by name, of texts `NAME=VALUE`."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            values[name] = kind(value)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise ValueError(f"{option} = {text!r} cannot be read; write NAME={example}.")
    return values


@dataclasses.dataclass(frozen=True)
class AgentChoice(GivenSettings):
    """What is trained. A setting that is not given is that of --config or --like, or else the
    preset's, or the algorithm's default, which is shown.
    """

    env: Text = None
    """Environment: a name that `purerl envs` lists, or the import path package.module:Name; by
    default CartPole-v1."""
    algo: Annotated[
        Literal["vpg", "ppo", "a2c", "reinforce"] | None,
        tyro.conf.arg(metavar="{vpg,ppo,a2c,reinforce}", help_behavior_hint="(default: vpg)"),
    ] = None
    """Algorithm."""
    config: File = None
    """TOML file of settings, as `purerl show --toml` writes it; those given here win."""
    like: Folder = None
    """Run directory whose settings are taken; those given here win."""


def with_settings(name: str, base: type[GivenSettings]) -> Any:
    """A dataclass of options with those of `base` and each of its settings, with its default."""
    settings, fields = all_settings(), []
    for setting in base.NAMES:
        defaults = {algo: default_of(setting, algo) for algo in ALGORITHM_DEFAULTS}
        fields.append((setting, as_option(settings[setting], defaults), None))
    made = dataclasses.make_dataclass(name, fields, bases=(base,), frozen=True, kw_only=True)
    made.__doc__ = base.__doc__
    return made


if TYPE_CHECKING:

    class AgentOptions(AgentChoice):
        """`AgentChoice` and all settings."""
else:
    AgentOptions = with_settings("AgentOptions", AgentChoice)


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How it is trained."""

    root: Count = None
    """Root key from which every seed's key is derived; by default 0, of a sweep 1000000, so that
    the winner of a sweep is confirmed by seeds that have not chosen it."""
    directory: Folder = None
    """Run directory; by default under runs/, named after environment and algorithm."""
    target_return: Number = None
    """Greedy return that counts as solved; known for some environments."""
    evaluation_episodes: int = 32
    """Greedy episodes of each seed after training; 0 for none."""
    updates_per_chunk: Count = None
    """Updates in one compiled call; by default a thirtieth of them.
    Checkpoints and signals wait for it."""
    seed_batch: Count = None
    """Seeds trained at once; by default all, or as many as fit into memory."""
    memory_limit: Text = None
    """Memory that may be used on each device, such as 4GB; by default what is free."""
    devices: Text = None
    """Devices: 8 for so many, over which seeds are spread; 4x2 for 4 times 2 that share the
    environments of the same seeds. By default all."""

    def arguments(self, env: str) -> dict[str, Any]:
        """The arguments of `run` and `run_sweep`."""
        from purerl.config.presets import TARGETS
        from purerl.experiment.hosts.devices import parse_mesh
        from purerl.experiment.hosts.memory import parse_bytes

        arguments = dataclasses.asdict(self)
        devices = arguments.pop("devices")
        target = TARGETS.get(env) if self.target_return is None else self.target_return
        limit = None if self.memory_limit is None else parse_bytes(self.memory_limit)
        mesh = None if devices is None else parse_mesh(devices)
        arguments |= {"target_return": target, "memory_limit": limit, "mesh": mesh}
        return {name: value for name, value in arguments.items() if (name, value) != ("root", None)}


@dataclasses.dataclass(frozen=True)
class SavingOptions:
    """What is kept of a run while it trains, and when it stops.

    A run that goes on keeps what is not given again, but for `--stop-on-nan`.
    """

    checkpoint_every: Count = None
    """Updates from one checkpoint to the next; by default as before, or else one is written with
    the first chunk that ends a minute after the last was begun."""
    keep_checkpoints: Count = None
    """Checkpoints that are kept, the newest; by default as before, or else 2."""
    stop_on_nan: bool = False
    """End the run where a seed stops being finite, instead of leaving that seed behind."""
    log: Annotated[
        tuple[Literal["jsonl", "tensorboard", "wandb"], ...] | None,
        tyro.conf.arg(metavar="[{jsonl,tensorboard,wandb} ...]", help_behavior_hint=""),
    ] = None
    """Loggers; by default those from before, or else none. Without a name: none."""
    log_seeds: bool = False
    """Log the numbers of single seeds too."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of `run` and `resume`."""
        from purerl.experiment.logging.loggers import LOGGERS

        arguments = dataclasses.asdict(self)
        names, per_seed = arguments.pop("log"), arguments.pop("log_seeds")
        if per_seed and not names:
            raise ValueError(
                "--log-seeds has no effect without loggers; name them: --log jsonl --log-seeds."
            )
        if names is not None:
            arguments["hooks"] = [LOGGERS[name](per_seed=per_seed) for name in names]
        return {name: value for name, value in arguments.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """Several processes, each with its own devices."""

    distributed: bool = False
    """Train as one of several processes, which the cluster's environment tells of: Slurm's, Open
    MPI's, Kubernetes' or a TPU pod's."""
    coordinator: Text = None
    """HOST:PORT of the first process, where there is no such environment."""
    num_processes: Count = None
    """Number of processes, where there is none."""
    process_id: Count = None
    """This one's number, from 0."""
    heartbeat_timeout: int = 60
    """Seconds of silence after which a process counts as dead, and all others end."""

    def arguments(self) -> dict[str, Any] | None:
        """The arguments of `initialize`; None for a process by itself.

        **Raises:** `ValueError` where an option has no effect.
        """
        arguments = dataclasses.asdict(self)
        if arguments.pop("distributed"):
            return arguments
        for name in ("coordinator", "num_processes", "process_id"):
            if arguments[name] is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')} has no effect without --distributed; add it."
                )
        return None
