"""The command line: what each command takes. `experiment/commands.py` does what they say."""

import dataclasses
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

START = time.perf_counter()  # before the imports, whose time is shown

import tyro  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Agent:
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
    normalize_advantage: bool | None = None
    """Whether advantages are normalised within the minibatch."""
    normalize_obs: bool | None = None
    """Whether observations are normalised with their running statistics."""
    normalize_reward: bool | None = None
    """Whether rewards are divided by the running spread of the return."""
    anneal: tuple[str, ...] | None = None
    """Hyperparameters that fall linearly to 0 over the run."""
    std_from_obs: bool | None = None
    """Whether the network gives a Gaussian policy's standard deviation too."""
    squash: bool | None = None
    """Whether tanh squeezes a Gaussian policy between the bounds."""
    log_every: int | None = None
    """Updates that one record of metrics covers; must divide the updates."""

    def settings(self) -> dict[str, Any]:
        """What was given of the settings that `preset` takes."""
        from purerl.factories import Settings

        given = {name: getattr(self, name, None) for name in get_type_hints(Settings)}
        return {name: value for name, value in given.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class How:
    """How it is trained."""

    root: int = 0
    """Root key from which every seed's key is derived."""
    directory: Path | None = None
    """Run directory; by default under runs/, named after environment and algorithm."""
    target_return: float | None = None
    """Greedy return that counts as solved; known for some environments."""
    evaluation_episodes: int = 32
    """Greedy episodes of each seed after training; 0 for none."""
    updates_per_chunk: int | None = None
    """Updates in one compiled call; must divide the updates. Checkpoints and signals wait for
    it."""
    seed_batch: int | None = None
    """Seeds trained at once; by default all, or as many as fit into memory."""
    memory_limit: str | None = None
    """Memory that may be used on each device, such as 4GB; by default what is free."""

    def options(self, env: str) -> dict[str, Any]:
        """The arguments of `run` and `run_sweep`."""
        from purerl.experiment.memory import parse_bytes
        from purerl.presets import TARGETS

        target = TARGETS.get(env) if self.target_return is None else self.target_return
        limit = None if self.memory_limit is None else parse_bytes(self.memory_limit)
        return dataclasses.asdict(self) | {"target_return": target, "memory_limit": limit}


@dataclasses.dataclass(frozen=True)
class Keep:
    """What is kept of a run while it trains, and when it stops."""

    checkpoint_every: int | None = None
    """Updates from one checkpoint to the next; by default the chunks that begin within a minute."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept, the newest."""
    stop_on_nan: bool = False
    """End the run where a seed stops being finite, instead of leaving that seed behind."""
    log: tuple[Literal["jsonl", "tensorboard", "wandb"], ...] = ()
    """Loggers."""
    log_seeds: bool = False
    """Log the numbers of single seeds too."""

    def options(self) -> dict[str, Any]:
        """The arguments of `run` and `resume`."""
        from purerl.experiment.loggers import make_logger

        given = dataclasses.asdict(self)
        names, per_seed = given.pop("log"), given.pop("log_seeds")
        return given | {"hooks": [make_logger(name, per_seed=per_seed) for name in names]}


@dataclasses.dataclass(frozen=True)
class Train:
    """Train many seeds of one agent, and leave their metrics and a figure in a run directory."""

    agent: Agent
    how: How
    keep: Keep
    seeds: int = 64
    """Number of seeds; their ids are 0, 1, …"""
    evaluate_every: int | None = None
    """Updates from one evaluation to the next, greedy and sampled; by default only at the end."""


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped, exactly as if it had not been."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    keep: Keep
    env: str | None = None
    """Import path of the environment, where it is your own."""
    total_steps: int | None = None
    """Another budget; annealed hyperparameters then fall over the new one."""
    seed_batch: int | None = None
    """Seeds trained at once, where fewer fit than before; needs --force, as the result may
    change."""
    memory_limit: str | None = None
    """Memory that may be used on each device, such as 4GB; by default what is free."""
    force: bool = False
    """Go on although a version or the machine differs, which may change the result; where no
    checkpoint is sound, lose them and start from zero."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Play many episodes with the policies of a run."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    episodes: int = 1000
    """Episodes of each seed."""
    sampled: bool = False
    """Sample actions, instead of taking the most likely."""
    seeds: tuple[int, ...] | None = None
    """Ids of the seeds to play; by default all."""
    env: str | None = None
    """Import path of the environment, where it is your own."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare finished runs of one environment: a table, and a figure."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories; the others are compared with the first."""
    output: Path = Path("comparison.png")
    """Figure to write."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a policy, the metrics or the scores of a run into a file for other programs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directory; for --scores several, of several algorithms and environments."""
    seed: int | None = None
    """Seed whose policy is written."""
    output: Path | None = None
    """File of the policy; by default policy_SEED.npz in the run directory."""
    metrics: Path | None = None
    """Table of all records of all seeds to write: .csv or .parquet."""
    scores: Path | None = None
    """Final returns to write as rliable takes them, an array [seeds, environments] an algorithm:
    .npz."""
    env: str | None = None
    """Import path of the environment, where it is your own."""


@dataclasses.dataclass(frozen=True)
class Render:
    """Make a GIF of an episode of a run."""

    run: tyro.conf.Positional[Path]
    """Run directory."""
    seed: int = 0
    """Seed whose policy plays."""
    episode: int = 0
    """Which of its episodes."""
    output: Path | None = None
    """File to write; by default seed_SEED.gif in the run directory."""
    max_steps: int | None = None
    """Steps after which to stop; by default the time limit."""
    env: str | None = None
    """Import path of the environment, where it is your own."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train every seed with every setting in one compiled program, and rank the settings.

    Example: purerl sweep --algo ppo --values policy_learning_rate=1e-3,3e-3 entropy_coef=0,0.01
    """

    agent: Agent
    how: How
    values: tuple[str, ...]
    """What varies, each as NAME=VALUE,VALUE,… or, with --draws, NAME=LOW..HIGH or
    NAME=log:LOW..HIGH; a parameter of the environment is env_params.NAME."""
    zip: bool = False
    """Take the values side by side, instead of every combination."""
    draws: int | None = None
    """Number of random settings, instead of every combination."""
    seeds: int = 8
    """Number of seeds of each setting; their ids are 0, 1, …"""


@dataclasses.dataclass(frozen=True)
class Envs:
    """List the environments that train, and those for which there are presets."""


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Envs, tyro.conf.subcommand("envs")]
)


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Bad input ends with one line on stderr and exit code 2, a run that cannot go on with 1, one that
    a signal has stopped with 128 and the signal's number.
    """
    command = tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="purerl",
        args=args,
        description="Train policy-gradient agents on pure-JAX environments.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from purerl.experiment import commands
    from purerl.experiment.cores import use_all_cores
    from purerl.experiment.errors import RunError, Stopped

    use_all_cores()
    sys.path.insert(0, os.getcwd())  # --env package.module:Name means the user's own
    warnings.showwarning = _show_warning
    try:
        commands.carry_out(command, START)
    except ValueError as error:
        if "\n" in str(error):  # not one of the checks' lines: a bug should show its traceback
            raise
        print(f"purerl: {error}", file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(f"purerl: {error}", file=sys.stderr)
        sys.exit(1)
    except Stopped as stopped:
        print(f"purerl: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal_number)
    except KeyboardInterrupt:
        print("purerl: stopped at once; what was saved stands.", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)  # a chunk may still be computed: it is not waited for


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"purerl: warning: {message}", file=sys.stderr)
