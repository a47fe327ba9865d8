"""The command line: `purerl train`, `purerl sweep` and `purerl envs`."""

import dataclasses
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints


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
    """Updates in one compiled call; must divide the updates."""

    def options(self, env: str) -> dict[str, Any]:
        """The arguments of `run` and `run_sweep`."""
        from purerl.presets import TARGETS

        target = TARGETS.get(env) if self.target_return is None else self.target_return
        return dataclasses.asdict(self) | {"target_return": target}


@dataclasses.dataclass(frozen=True)
class Train:
    """Train many seeds of one agent, and leave their metrics and a figure in a run directory."""

    agent: Agent
    how: How
    seeds: int = 64
    """Number of seeds; their ids are 0, 1, …"""


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


def main(args: list[str] | None = None) -> None:
    """Run the command line. Bad input ends with one line on stderr and exit code 2."""
    start = time.perf_counter()
    import tyro  # in here, so that the time shown for imports covers them

    from purerl.experiment import commands
    from purerl.experiment.cores import use_all_cores

    command = tyro.cli(
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Sweep, tyro.conf.subcommand("sweep")]
        | Annotated[Envs, tyro.conf.subcommand("envs")],  # pyright: ignore[reportArgumentType]
        prog="purerl",
        args=args,
        description="Train policy-gradient agents on pure-JAX environments.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    use_all_cores()
    sys.path.insert(0, os.getcwd())  # --env package.module:Name means the user's own
    warnings.showwarning = _show_warning
    try:
        if isinstance(command, Train):
            commands.train(command, start)
        elif isinstance(command, Sweep):
            commands.sweep(command, start)
        else:
            commands.list_envs()
    except ValueError as error:
        if "\n" in str(error):  # not one of the checks' lines: a bug should show its traceback
            raise
        print(f"purerl: {error}", file=sys.stderr)
        sys.exit(2)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"purerl: warning: {message}", file=sys.stderr)
