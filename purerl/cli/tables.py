"""The tables that commands print."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from purerl.config.presets import FACTORIES, PRESETS
from purerl.envs import check_env, env_names, make_env
from purerl.experiment.play.run_evaluation import Played
from purerl.experiment.report.comparison import Compared
from purerl.experiment.report.format import ranges, short, show_bytes, show_interval
from purerl.experiment.report.run_result import Run
from purerl.experiment.report.statistics import known, share_at
from purerl.experiment.report.sweep_ranking import Sweep
from purerl.experiment.store.header import env_name
from purerl.planning.plans import Plan

TRIED = "jax 0.10.2 and 0.11.2"


def evaluation_table(played: Played) -> Table:
    """What an evaluation came to, over seeds."""
    returns, target = played.returns, played.plan.target_return
    rows = [
        (f"{played.kind} return, {name} over seeds [95% interval]", show_interval(figure))
        for name, figure in zip(("IQM", "mean", "median"), played.figures(), strict=True)
    ]
    if target is not None:
        rows.append((f"seeds at {target:g} or more", f"{share_at(returns, target):.0%}"))
    lowest, highest = known(returns).min(), known(returns).max()
    rows.append(("seeds, lowest to highest", f"{lowest:.1f} to {highest:.1f}"))
    unfinished = int(np.sum(played.evaluation.num_unfinished))
    if unfinished:
        rows.append(("episodes that did not end", str(unfinished)))
    rows.append(("seeds that had stopped being finite", ranges(played.failed_seeds) or "none"))
    config, num_episodes = played.plan.config, played.evaluation.episode_return.shape[1]
    title = f"{env_name(config)} · {config.algorithm.name} · {len(returns)} seeds · "
    return summary_table(f"{title}{num_episodes} episodes each · update {played.updates}", rows)


def comparison_table(compared: Sequence[Compared]) -> Table:
    """Statistics of several runs, one a column."""
    runs = [each.run for each in compared]
    table = Table("", *(each.name for each in compared), box=SIMPLE_HEAD)
    table.title, table.title_justify, table.title_style = runs[0].env, "left", "bold"
    table.padding = (0, 1, 0, 0)
    table.add_row("algorithm", *(run.algo for run in runs))
    table.add_row("seeds", *(str(len(run.returns)) for run in runs))
    if any(run.failed_seeds for run in runs):
        table.add_row("failed seeds", *(ranges(run.failed_seeds) or "none" for run in runs))
    if any(run.silent_seeds for run in runs):
        table.add_row("without an episode", *(ranges(run.silent_seeds) or "none" for run in runs))
    for i, name in enumerate((f"{runs[0].kind}, IQM [95%]", "mean", "median")):
        table.add_row(name, *(show_interval(each.figures[i]) for each in compared))
    if any(each.solved is not None for each in compared):
        shares = ("" if each.solved is None else f"{each.solved:.0%}" for each in compared)
        targets = {run.target_return for run in runs}
        at = f"seeds at {targets.pop():g} or more" if len(targets) == 1 else "seeds at their target"
        table.add_row(at, *shares)
    if len(compared) > 1:
        chances = (
            "" if each.improvement is None else show_interval(each.improvement, 2)
            for each in compared
        )
        table.add_row("P(beats first)", *chances)
    return table


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
        share = f"{count} of {summary.num_seeds} ({summary.solved:.0%})"
        rows.append((f"seeds at {summary.target_return:g} or more", share))
    if summary.num_unfinished:
        rows.append(("greedy episodes that did not end", str(summary.num_unfinished)))
    if summary.seeds_without_episode:
        rows.append(("seeds in which no episode ended", ranges(summary.seeds_without_episode)))
    if result.resumed_at:
        updates = f"{result.resumed_at} of {result.config.num_updates}"
        rows.append(("went on from update", updates))
    times = summary.times
    rows += [
        ("seeds that stopped being finite", ranges(summary.failed_seeds) or "none"),
        ("environment steps, all seeds", short(summary.env_steps)),
        (
            "environment steps trained per second",
            "" if np.isnan(summary.steps_per_second) else short(summary.steps_per_second),
        ),
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


def envs_table() -> Table:
    """Each registered environment, its spaces, and what is tuned for it."""
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
    return table


def summary_table(title: str, rows: list[tuple[str, str]]) -> Table:
    """A table of two columns: what, and its figure."""
    table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
    for what, figure in rows:
        table.add_row(what, figure)
    return table


def show(renderable: Any) -> None:
    """Print something of rich's to stdout."""
    Console().print(renderable)


def rows(made: Plan) -> list[tuple[str, str]]:
    """A plan as a table for people."""
    fits = "yes" if made.fits else "no"
    if not made.fits and made.largest_seeds:
        fits += f"; in batches: --seed-batch {made.largest_seeds}"
    each = "each" if made.sharing == 1 else f"each {made.sharing} that share their environments"
    filling = f"about {made.largest_seeds:,}"
    if made.num_devices > 1:
        groups = made.num_devices // made.sharing
        filling += f", {made.largest_seeds // groups:,} on {each}{' device' * (made.sharing == 1)}"
    update = [f"{short(made.flops)}FLOP"]
    if made.bytes is not None:
        update += [f"{show_bytes(made.bytes)} of traffic", f"{made.launches:,.0f} launches"]
    limit = {"memory": "the traffic, at the memory's speed", "arithmetic": "the FLOP, at peak"}
    shown = [
        ("fits", fits),
        ("devices", f"{made.num_devices} × {made.device}, {made.seeds_per_device} seeds on {each}"),
        (
            "memory of a device",
            f"{show_bytes(made.memory)} of {show_bytes(made.memory_limit)} that a run may use "
            f"({show_bytes(made.device_memory)} in all)",
        ),
        ("seeds that would fill the memory", filling),
        ("an update on a device", ", ".join(update)),
        ("takes at least", f"{made.seconds * 1e3:.3g} ms: {limit[made.bound_by]}"),
        ("environment steps a second, at most", short(made.steps_per_second)),
        ("seconds to compile", f"{made.compile_seconds:.0f}"),
        ("compiled with", ", ".join(f"{name} {this}" for name, this in made.versions.items())),
        ("tried with", TRIED),
    ]
    if made.temporaries is not None:
        shown.insert(3, ("of which temporaries", show_bytes(made.temporaries)))
    if made.collectives is not None:
        listed = (f"{count} {name}" for name, count in sorted(made.collectives.items()))
        shown.insert(5, ("collectives in the program", ", ".join(listed) or "none"))
    return shown
