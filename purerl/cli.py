"""The command line: `purerl train` and `purerl envs`."""

import dataclasses
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

if TYPE_CHECKING:
    from purerl.experiment.result import Run

_SETTINGS = (
    "total_steps",
    "num_envs",
    "rollout_length",
    "hidden",
    "policy_learning_rate",
    "baseline_learning_rate",
    "discount",
    "entropy_coef",
    "max_grad_norm",
    "baseline_epochs",
    "normalize_advantage",
    "log_every",
)


@dataclasses.dataclass(frozen=True)
class Train:
    """Train many seeds of one agent, and leave their metrics and a figure in a run directory.

    A setting that is not given is the preset's for this environment, or the algorithm's default.
    """

    env: str = "CartPole-v1"
    """Environment: a name that `purerl envs` lists, or the import path package.module:Name."""
    algo: Literal["vpg", "reinforce"] = "vpg"
    """Algorithm."""
    seeds: int = 64
    """Number of seeds; their ids are 0, 1, …"""
    root: int = 0
    """Root key from which every seed's key is derived."""
    directory: Path | None = None
    """Run directory; by default runs/ENV-ALGORITHM."""
    target_return: float | None = None
    """Greedy return that counts as solved; known for some environments."""
    evaluation_episodes: int = 32
    """Greedy episodes of each seed after training; 0 for none."""
    updates_per_chunk: int | None = None
    """Updates in one compiled call; must divide the updates."""
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
    entropy_coef: float | None = None
    """Weight of the entropy bonus."""
    max_grad_norm: float | None = None
    """Global norm to which gradients are clipped."""
    baseline_epochs: int | None = None
    """Full-batch passes of the baseline after each rollout."""
    normalize_advantage: bool | None = None
    """Whether advantages are normalised within the seed."""
    log_every: int | None = None
    """Updates that one record of metrics covers; must divide the updates."""


@dataclasses.dataclass(frozen=True)
class Envs:
    """List the environments that train, and with which algorithms."""


def main(args: list[str] | None = None) -> None:
    """Run the command line. Bad input ends with one line on stderr and exit code 2."""
    start = time.perf_counter()
    import jax  # in here, so that the time shown for imports covers them
    import tyro

    command = tyro.cli(
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Envs, tyro.conf.subcommand("envs")],  # pyright: ignore[reportArgumentType]
        prog="purerl",
        args=args,
        description="Train policy-gradient agents on pure-JAX environments.",
    )
    # A CPU's cores become devices, over which seeds are spread; it must be said before anything
    # starts the backend.
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    sys.path.insert(0, os.getcwd())  # --env package.module:Name means the user's own
    warnings.showwarning = _show_warning
    try:
        train(command, start) if isinstance(command, Train) else list_envs()
    except ValueError as error:
        if "\n" in str(error):  # not one of the checks' lines: a bug should show its traceback
            raise
        print(f"purerl: {error}", file=sys.stderr)
        sys.exit(2)


def train(options: Train, start: float) -> None:
    """`purerl train`: the preset with the given settings, through `purerl.run`."""
    from purerl.envs import env_names
    from purerl.experiment.run import run
    from purerl.presets import TARGETS, preset

    if ":" not in options.env:
        env_names()  # imports gymnax, so that its time is counted as import
    import_seconds = time.perf_counter() - start
    given = {
        name: getattr(options, name) for name in _SETTINGS if getattr(options, name) is not None
    }
    target = TARGETS.get(options.env) if options.target_return is None else options.target_return
    result = run(
        preset(options.env, options.algo, **given),
        seeds=options.seeds,
        directory=options.directory,
        root=options.root,
        updates_per_chunk=options.updates_per_chunk,
        evaluation_episodes=options.evaluation_episodes,
        target_return=target,
    )
    show_result(result, import_seconds)


def show_result(result: "Run", import_seconds: float) -> None:
    """Print what a run came to: returns, seeds solved and failed, and where the time went."""
    from purerl.experiment.display import short, show, show_interval, summary_table
    from purerl.experiment.result import env_name

    summary = result.summary()
    title = (
        f"{env_name(result.config)} · {result.config.algorithm.name} · {summary.num_seeds} seeds"
    )
    kind = "greedy return" if summary.greedy else "last return in training"
    rows = [(f"{kind}, IQM over seeds [95% interval]", show_interval(summary.episode_return))]
    if summary.solved is not None:
        count = round(summary.solved * summary.num_seeds)
        rows.append(
            (
                f"seeds at {summary.target_return:g} or more",
                f"{count} of {summary.num_seeds} ({summary.solved:.0%})",
            )
        )
    failed = ", ".join(map(str, summary.failed_seeds)) or "none"
    times = summary.times
    rows += [
        ("seeds that stopped being finite", failed),
        ("environment steps, all seeds", short(summary.env_steps)),
        ("environment steps trained per second", short(summary.steps_per_second)),
        (
            "seconds: import + compile + run + evaluate",
            f"{import_seconds:.1f} + {times.compile:.1f} + {times.run:.1f} + {times.evaluate:.1f}",
        ),
        ("run directory", str(result.directory)),
    ]
    show(summary_table(title, rows))


def list_envs() -> None:
    """`purerl envs`: each registered environment, its spaces, and what trains on it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from purerl.envs import check_env, env_names, make_env
    from purerl.experiment.display import show
    from purerl.presets import FACTORIES

    table = Table("environment", "observations", "actions", "limit", "trains with", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for name in env_names():
        if name == "MNISTBandit-bsuite":  # making it downloads a dataset
            table.add_row(name, "", "", "", "[dim]a download[/dim]")
            continue
        spec = check_env(*make_env(name))
        trains = [algo for algo, factory in FACTORIES.items() if _builds(factory, name)]
        table.add_row(
            name,
            str(spec.obs_space),
            str(spec.action_space),
            str(spec.max_steps or ""),
            ", ".join(trains) or "[dim]own networks[/dim]",
        )
    show(table)


def _builds(factory, name: str) -> bool:
    try:
        factory(name)
    except ValueError:
        return False
    return True


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"purerl: warning: {message}", file=sys.stderr)
