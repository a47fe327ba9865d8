"""What the command line does: train, sweep, list; and the tables that it prints."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from purerl.config import Config
from purerl.envs import check_env, env_names, make_env
from purerl.experiment.display import show, show_interval, summary_table
from purerl.experiment.header import env_name
from purerl.experiment.result import Run
from purerl.experiment.run import run
from purerl.experiment.sweeps import Sweep, run_sweep
from purerl.experiment.words import short
from purerl.presets import FACTORIES, PRESETS, preset
from purerl.sweep import LogUniform, Uniform
from purerl.sweep import sweep as settings_of

if TYPE_CHECKING:
    from purerl.cli import Agent, Train
    from purerl.cli import Sweep as SweepOptions


def train(options: "Train", start: float) -> None:
    """`purerl train`: the preset with the given settings, through `purerl.run`."""
    config = make_config(options.agent)
    import_seconds = time.perf_counter() - start
    result = run(config, options.seeds, **options.how.options(options.agent.env))
    show_result(result, import_seconds)


def sweep(options: "SweepOptions", start: float) -> None:
    """`purerl sweep`: every seed with every setting, through `purerl.run_sweep`."""
    config = make_config(options.agent)
    values: dict[str, Any] = {}
    for text in options.values:
        name, column = parse_values(text)
        if name in values:
            raise ValueError(f"values name {name} twice; give all its values at once.")
        values[name] = column
    settings = settings_of(
        config, zip=options.zip, draws=options.draws, root=options.how.root, **values
    )
    import_seconds = time.perf_counter() - start
    result = run_sweep(settings, options.seeds, **options.how.options(options.agent.env))
    show_sweep(result, import_seconds)


def make_config(agent: "Agent") -> Config:
    """The preset with the settings given; the time that its checks take counts as import."""
    return preset(agent.env, agent.algo, **agent.settings())


def parse_values(text: str) -> tuple[str, Any]:
    """`NAME=1,2` as the name and numbers; `NAME=1..2` or `NAME=log:1..2` as one to draw from."""
    name, _, values = text.partition("=")
    try:
        if ".." in values:
            kind = LogUniform if values.startswith("log:") else Uniform
            low, high = values.removeprefix("log:").split("..")
            return name, kind(float(low), float(high))
        return name, [float(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(
            f"values = {text!r} cannot be read; write NAME=1,2, NAME=1..2 or NAME=log:1..2."
        ) from None


def show_result(result: Run, import_seconds: float) -> None:
    """Print what a run came to: returns, seeds solved and failed, and where the time went."""
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
    if summary.num_unfinished:
        rows.append(("greedy episodes that did not end", str(summary.num_unfinished)))
    if summary.seeds_without_episode:
        silent = ", ".join(map(str, summary.seeds_without_episode))
        rows.append(("seeds in which no episode ended", silent))
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


def show_sweep(result: Sweep, import_seconds: float) -> None:
    """Print a sweep's ranking, best first, with intervals, and where the time went."""
    num_settings, num_seeds = result.returns.shape
    config = result.configs
    table = Table(
        "",
        *result.values,
        "return, IQM [95%]",
        box=SIMPLE_HEAD,
        title=f"{env_name(config)} · {config.algorithm.name} · {num_settings} settings · "
        f"{num_seeds} seeds each",
        title_justify="left",
        title_style="bold",
    )
    has_target, has_failed = result.target_return is not None, bool(np.any(result.failed))
    if has_target:
        table.add_column(f"≥ {result.target_return:g}", justify="right")
    if has_failed:
        table.add_column("failed")
    for place, each in enumerate(result.ranking(), 1):
        row = [str(place), *(f"{value:.4g}" for value in each.values.values())]
        row.append(show_interval(each.episode_return))
        if each.solved is not None:
            row.append(f"{each.solved:.0%}")
        if has_failed:
            row.append(str(each.num_failed))
        table.add_row(*row)
    show(table)
    times = result.times
    show(
        f"seconds: import {import_seconds:.1f} + compile {times.compile:.1f} + run "
        f"{times.run:.1f} + evaluate {times.evaluate:.1f}; {result.directory}"
    )


def list_envs() -> None:
    """`purerl envs`: each registered environment, its spaces, and what is tuned for it."""
    table = Table("environment", "observations", "actions", "limit", "presets", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.columns[0].no_wrap = True
    for name in env_names():
        if name == "MNISTBandit-bsuite":  # making it downloads a dataset
            table.add_row(name, "", "", "", "[dim]needs a download[/dim]")
            continue
        spec = check_env(*make_env(name))
        tuned = [algo for algo in FACTORIES if (name, algo) in PRESETS]
        table.add_row(
            name,
            str(spec.obs_space),
            str(spec.action_space),
            str(spec.max_steps or ""),
            ", ".join(tuned),
        )
    show(table)
    show(f"Each trains with {', '.join(FACTORIES)}, with a preset or with an algorithm's defaults.")
