"""The commands and their options, as the command line shows them."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro

from purerl.cli.options import (
    AgentOptions,
    GivenSettings,
    ProcessOptions,
    SavingOptions,
    TrainingOptions,
    with_settings,
)
from purerl.cli.words import Count, Counts, Directory, File, Folder, Text


@dataclasses.dataclass(frozen=True)
class Train:
    """Train many seeds of one agent, and leave their metrics and a figure in a run directory."""

    agent: AgentOptions
    training: TrainingOptions
    saving: SavingOptions
    processes: ProcessOptions
    seeds: int = 64
    """Number of seeds; their ids are 0, 1, …"""
    evaluate_every: Count = None
    """Updates from one evaluation to the next, greedy and sampled; by default only at the end."""


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped, exactly as if it had not been."""

    run: tyro.conf.Positional[Directory]
    """Run directory."""
    saving: SavingOptions
    processes: ProcessOptions
    env: Text = None
    """Import path of the environment, where it is your own."""
    total_steps: Count = None
    """Another budget; schedules then run over the new one."""
    seed_batch: Count = None
    """Seeds trained at once; needs --force, as the result may change."""
    memory_limit: Text = None
    """Memory that may be used on each device, such as 4GB; by default what is free."""
    devices: Text = None
    """Other devices than before, such as 8 or 4x2; needs --force, as the result may change."""
    force: bool = False
    """Go on although a version or the machine differs, which may change the result; where no
    checkpoint is sound, lose them and start from zero."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Play many episodes with the policies of a run."""

    run: tyro.conf.Positional[Directory]
    """Run directory."""
    episodes: int = 1000
    """Episodes of each seed."""
    sampled: bool = False
    """Sample actions, instead of taking the most likely."""
    seeds: Counts = None
    """Ids of the seeds to play; by default all."""
    max_steps: Count = None
    """Steps after which an episode is cut off; by default the time limit."""
    output: File = None
    """File to write; by default evaluation_greedy.json, or _sampled, in the run directory."""
    env: Text = None
    """Import path of the environment, where it is your own."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare finished runs under the same conditions: a table, and a figure."""

    runs: tyro.conf.Positional[tuple[Directory, ...]]
    """Run directories; the others are compared with the first."""
    output: Path = Path("comparison.png")
    """Figure to write."""
    allow_different: bool = False
    """Compare runs of other environments, parameters, steps or evaluations too; the table says how
    they differ."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a policy, the metrics or the scores of a run into a file for other programs."""

    runs: tyro.conf.Positional[tuple[Directory, ...]]
    """Run directory; for --scores several, of several algorithms and environments."""
    seed: Count = None
    """Seed whose policy is written."""
    output: File = None
    """File of the policy; by default policy_SEED.npz in the run directory."""
    metrics: File = None
    """Table of all records of all seeds to write: .csv or .parquet."""
    scores: File = None
    """Final returns to write as rliable takes them: .npz."""
    env: Text = None
    """Import path of the environment, where it is your own."""


@dataclasses.dataclass(frozen=True)
class Render:
    """Make a GIF of an episode of a run."""

    run: tyro.conf.Positional[Directory]
    """Run directory."""
    seed: int = 0
    """Seed whose policy plays."""
    episode: int = 0
    """Which of its episodes."""
    output: File = None
    """File to write; by default seed_SEED.gif in the run directory."""
    max_steps: Count = None
    """Steps after which to stop; by default the time limit."""
    env: Text = None
    """Import path of the environment, where it is your own."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train every seed with every setting in one compiled program, and rank the settings.

    Example: purerl sweep --algo ppo --values policy_learning_rate=1e-3,3e-3 entropy_coef=0,0.01
    """

    agent: AgentOptions
    training: TrainingOptions
    values: tuple[str, ...]
    """What varies, each as NAME=VALUE,VALUE,… or, with --draws, NAME=LOW..HIGH or
    NAME=log:LOW..HIGH; a parameter of the environment is env_params.NAME."""
    zip: bool = False
    """Take the values side by side, instead of every combination."""
    draws: Count = None
    """Number of random settings, instead of every combination."""
    seeds: int = 8
    """Number of seeds of each setting; their ids are 0, 1, …"""


@dataclasses.dataclass(frozen=True)
class Show:
    """Show every setting of an agent and where it comes from, and what follows from them.

    Example: purerl show --env Pendulum-v1 --algo ppo --num-envs 64
    """

    agent: AgentOptions
    seeds: int = 64
    """Number of seeds, for the memory."""
    memory: bool = False
    """Compile the run's programs for the devices that are here, and say what memory they plan."""
    toml: File = None
    """File to write the settings to, for --config."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Compile a run for machines that are not here: memory, collectives, kernels, limits of speed.

    Example: purerl plan --target v5e:16x16 --seeds 65536 --env CartPole-v1 --algo vpg
    """

    agent: AgentOptions
    target: str
    """Devices: h200, h100, a100-80g, a100-40g or l4, or as h100:8 several; or TPUs with their
    topology, such as v5e:16x16."""
    seeds: int = 64
    """Number of seeds."""
    devices: Text = None
    """Of the target's devices: 8 for so many, over which seeds are spread; 4x2 for 4 times 2 that
    share the environments of the same seeds. By default all."""
    json: File = None
    """File to write the plan to, as JSON."""


@dataclasses.dataclass(frozen=True)
class _Bench(GivenSettings):
    """Measure how fast this machine trains, in how much memory, and what share of its limits it is.

    Example: purerl bench --env CartPole-v1 --algo vpg ppo --seeds 1 16 256 --num-envs 64
    """

    NAMES: ClassVar[list[str]] = [
        *("rollout_length", "hidden", "epochs", "baseline_epochs", "num_minibatches"),
    ]

    env: str = "CartPole-v1"
    """Environment: a name that `purerl envs` lists, or the import path package.module:Name."""
    algo: tuple[Literal["vpg", "ppo", "a2c", "reinforce"], ...] = ("vpg",)
    """Algorithms, each with its preset for the environment, or with its defaults."""
    seeds: tuple[int, ...] = (1, 16, 256)
    """Numbers of seeds."""
    num_envs: Counts = None
    """Numbers of environments in one agent's rollout; by default the preset's."""
    updates: Count = None
    """Updates of one run, by default as many as make it long enough to be timed, 2 at least:
    600,000 steps over all seeds on a CPU, elsewhere 60 million in 200 updates at most. With enough
    of them the table says when an environment with a known target was solved."""
    repeats: int = 5
    """Runs that are timed, after one to warm up."""
    memory_limit: Text = None
    """Memory that may be used on each device, such as 4GB; by default what is free."""
    directory: Folder = None
    """Where bench.json, bench.png and bench.log are written, which must have no bench yet; by
    default runs/bench-ENVIRONMENT, numbered where that has one."""


if TYPE_CHECKING:

    class Bench(_Bench):
        """`_Bench` and some settings."""
else:
    Bench = with_settings("Bench", _Bench)


@dataclasses.dataclass(frozen=True)
class Envs:
    """List the environments that train, and those for which there are presets."""


Command = Train | Resume | Sweep | Show | Evaluate | Compare | Export | Render | Plan | Bench | Envs
