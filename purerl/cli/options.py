"""The options that several commands share, as the command line shows them."""

import dataclasses
from typing import Annotated, Any, Literal, get_type_hints

import tyro

# Of a run. It is text until it is checked: as a path, "" would be the current directory.
Directory = Annotated[str, tyro.conf.arg(metavar="PATH")]


@dataclasses.dataclass(frozen=True)
class AgentOptions:
    """What is trained. A setting that is not given is the preset's, or the algorithm's default."""

    env: str = "CartPole-v1"
    """Environment: a name that `purerl envs` lists, or the import path package.module:Name."""
    algo: Literal["vpg", "ppo", "a2c", "reinforce"] = "vpg"
    """Algorithm."""
    total_steps: int | None = None
    """Environment steps of one seed, rounded up to whole updates."""
    num_envs: int | None = None
    """Environments in one agent's rollout."""
    rollout_length: int | None = None
    """Steps of each environment in one rollout."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers of both networks."""
    policy_learning_rate: float | None = None
    """Learning rate of the policy's optimiser."""
    baseline_learning_rate: float | None = None
    """Learning rate of the baseline's optimiser."""
    discount: float | None = None
    """Discount γ."""
    gae_lambda: float | None = None
    """λ of the generalised advantages."""
    clip_eps: float | None = None
    """How far PPO's probability ratio, or a clipped value, may move."""
    clip_value: bool | None = None
    """Whether the baseline's loss is clipped too."""
    entropy_coef: float | None = None
    """Weight of the entropy bonus."""
    max_grad_norm: float | None = None
    """Global norm to which gradients are clipped."""
    target_kl: float | None = None
    """KL at which the policy's epochs on a rollout stop early."""
    epochs: int | None = None
    """Passes of the policy over each rollout."""
    baseline_epochs: int | None = None
    """Passes of the baseline over each rollout."""
    num_minibatches: int | None = None
    """Minibatches in a pass; must divide num_envs * rollout_length."""
    lookahead: int | None = None
    """Steps of the rollout that REINFORCE needs behind a step to learn from it, by default half."""
    normalize_advantage: bool | None = None
    """Whether advantages are normalised within the minibatch."""
    normalize_obs: bool | None = None
    """Whether observations are normalised with their running statistics."""
    normalize_reward: bool | None = None
    """Whether rewards are divided by the running spread of the return."""
    schedule: tuple[str, ...] | None = None
    """Hyperparameters that change, each as NAME=linear, which falls to 0. Without a name: none."""
    std_from_obs: bool | None = None
    """Whether a Gaussian policy's standard deviation depends on the observation."""
    squash: bool | None = None
    """Whether tanh squeezes a Gaussian policy between the bounds."""
    log_every: int | None = None
    """Updates that one record of metrics covers; the last may cover fewer."""

    def settings(self) -> dict[str, Any]:
        """The given settings, as `preset` takes them."""
        from purerl.config.settings import Settings

        given = {name: getattr(self, name, None) for name in get_type_hints(Settings)}
        for text in self.schedule or ():
            if "=" not in text:
                raise ValueError(f"schedule = {text!r} cannot be read; write NAME=linear.")
        if self.schedule is not None:
            given["schedule"] = dict(text.split("=", 1) for text in self.schedule)
        return {name: value for name, value in given.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How it is trained."""

    root: int | None = None
    """Root key from which every seed's key is derived; by default 0, of a sweep 1000000, so that
    the winner of a sweep is confirmed by seeds that have not chosen it."""
    directory: Directory | None = None
    """Run directory; by default under runs/, named after environment and algorithm."""
    target_return: float | None = None
    """Greedy return that counts as solved; known for some environments."""
    evaluation_episodes: int = 32
    """Greedy episodes of each seed after training; 0 for none."""
    updates_per_chunk: int | None = None
    """Updates in one compiled call; by default a thirtieth of them.
    Checkpoints and signals wait for it."""
    seed_batch: int | None = None
    """Seeds trained at once; by default all, or as many as fit into memory."""
    memory_limit: str | None = None
    """Memory that may be used on each device, such as 4GB; by default what is free."""
    devices: str | None = None
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

    checkpoint_every: int | None = None
    """Updates from one checkpoint to the next; by default as before, or else one is written with
    the first chunk that ends a minute after the last was begun."""
    keep_checkpoints: int | None = None
    """Checkpoints that are kept, the newest; by default as before, or else 2."""
    stop_on_nan: bool = False
    """End the run where a seed stops being finite, instead of leaving that seed behind."""
    log: tuple[Literal["jsonl", "tensorboard", "wandb"], ...] | None = None
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
    coordinator: str | None = None
    """HOST:PORT of the first process, where there is no such environment."""
    num_processes: int | None = None
    """Number of processes, where there is none."""
    process_id: int | None = None
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
