"""The tables that commands print."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from purerl.checks import printable
from purerl.config.presets import FACTORIES, PRESETS
from purerl.envs import DOWNLOADING, check_env, env_names, make_env
from purerl.experiment.play.run_evaluation import RunEvaluation
from purerl.experiment.report.comparison import ComparedRun
from purerl.experiment.report.format import (
    format_bytes,
    format_failed,
    format_interval,
    format_number,
    format_ranges,
    format_returns,
    format_share,
    format_values,
)
from purerl.experiment.report.run_result import Run
from purerl.experiment.report.statistics import share_solved
from purerl.experiment.report.sweep_ranking import Sweep
from purerl.experiment.store.header import env_name, format_diff, format_provenance
from purerl.experiment.store.paths import shown
from purerl.planning.plans import Plan

TRIED = "jax 0.10.2 and 0.11.2"
TITLE: Any = {"title_justify": "left", "title_style": "bold"}


def evaluation_table(result: RunEvaluation) -> Table:
    """Statistics over seeds of an evaluation."""
    returns, target = result.returns, result.spec.target_return
    iqm, mean, median = result.statistics()
    value, kind = format_returns(iqm, returns, len(result.failed_seeds)), f"{result.actions} return"
    lowest, highest = format_values([np.nanmin(returns), np.nanmax(returns)])
    rows: list[tuple[str, Any]] = [
        (f"{kind}, IQM over seeds [95% interval]", value),
        (f"{kind}, mean over seeds [95% interval]", format_interval(mean)),
        (f"{kind}, median over seeds [95% interval]", format_interval(median)),
        *target_rows(target, share_solved(returns, target), result.num_near_target, len(returns)),
        ("seeds, lowest to highest", f"{lowest} to {highest}"),
        ("episodes that did not end", result.num_unfinished or None),
        ("settings changed", format_provenance(result.spec.provenance)),
        ("seeds that had stopped being finite", format_ranges(result.failed_seeds) or "none"),
    ]
    config, num_episodes = result.spec.config, result.evaluation.episode_return.shape[1]
    title = f"{env_name(config)} · {config.algorithm.name} · {len(returns)} seeds · "
    return summary_table(f"{title}{num_episodes} episodes each · update {result.updates}", rows)


def comparison_table(compared: Sequence[ComparedRun]) -> Table:
    """Statistics of several runs, one a column."""
    runs = [each.run for each in compared]
    table = Table(
        "",
        *(printable(each.name) for each in compared),
        title=comparison_title(compared),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        **TITLE,
    )
    table.add_row("algorithm", *(run.algo for run in runs))
    table.add_row("seeds", *(str(len(run.returns)) for run in runs))
    table.add_row("env steps of a seed", *(format_number(run.env_steps) for run in runs))
    if any(run.failed_seeds for run in runs):
        table.add_row("failed seeds", *(format_ranges(run.failed_seeds) or "none" for run in runs))
    if any(run.seeds_without_episode for run in runs):
        seeds = (format_ranges(run.seeds_without_episode) or "none" for run in runs)
        table.add_row("without an episode", *seeds)
    if any(run.provenance for run in runs):
        table.add_row("settings changed", *(format_provenance(x.provenance) or "" for x in runs))
    iqms = (
        format_returns(each.statistics.iqm, each.run.returns, len(each.run.failed_seeds))
        for each in compared
    )
    table.add_row(f"{runs[0].return_name}, IQM [95%]", *iqms)
    for label in ("mean", "median"):
        intervals = (getattr(each.statistics, label) for each in compared)
        table.add_row(label, *map(format_interval, intervals))
    if any(each.solved is not None for each in compared):
        targets = {run.target_return for run in runs}
        target = f"{targets.pop():g} or more" if len(targets) == 1 else "their target"
        shares = (
            "" if each.solved is None else format_share(each.solved, len(each.run.returns))
            for each in compared
        )
        table.add_row(f"seeds at {target}", *shares)
        near = ("" if x.num_near_target is None else str(x.num_near_target) for x in compared)
        table.add_row("within their noise of it", *near)
    if len(compared) > 1:
        chances = (
            "" if each.improvement is None else format_interval(each.improvement, 2)
            for each in compared
        )
        table.add_row("P(beats first)", *chances)
    return table


def comparison_title(compared: Sequence[ComparedRun]) -> str:
    """The environment, and how runs are unlike the first."""
    different = [
        f"{each.name} ({format_diff(list(each.differences))})"
        for each in compared
        if each.differences
    ]
    unlike = f"; unlike {compared[0].name}: {', '.join(different)}" if different else ""
    return printable(compared[0].run.env + unlike)


def target_rows(
    target: float | None, solved: float | None, num_near: int | None, num_seeds: int
) -> list[tuple[str, Any]]:
    """How many seeds reach the target, and of how many other episodes could have said otherwise."""
    if target is None or solved is None:
        return []
    return [
        (f"seeds at {target:g} or more", format_share(solved, num_seeds)),
        (f"seeds within their own noise of {target:g}", num_near),
    ]


def show_result(result: Run, import_seconds: float) -> None:
    """Print the summary of a run: returns, seeds solved and failed, and where the time went."""
    summary, config = result.summary(), result.config
    title = f"{env_name(config)} · {config.algorithm.name} · {summary.num_seeds} seeds"
    kind = "greedy return" if summary.greedy else "last return in training"
    num_failed = len(summary.failed_seeds)
    value = format_returns(summary.episode_return, result.final_returns(), num_failed)
    rows: list[tuple[str, Any]] = [
        (f"{kind}, IQM over seeds [95% interval]", value),
        *target_rows(
            summary.target_return, summary.solved, summary.num_near_target, summary.num_seeds
        ),
    ]
    went_on = f"{result.resumed_at} of {config.num_updates}" if result.resumed_at else None
    is_over = num_failed == summary.num_seeds
    ended = f"{result.updates} of {config.num_updates}" if is_over else None
    failed = format_failed(summary.failed_seeds, result.causes)
    speed = "" if np.isnan(summary.steps_per_second) else format_number(summary.steps_per_second)
    seconds = " + ".join(f"{part:.1f}" for part in (import_seconds, *summary.times))
    rows += [
        ("greedy episodes that did not end", summary.num_unfinished or None),
        ("seeds in which no episode ended", format_ranges(summary.seeds_without_episode) or None),
        ("went on from update", went_on),
        ("settings changed", format_provenance(result.provenance)),
        ("seeds that stopped being finite", failed or "none"),
        ("no agent was left at update", ended),
        ("environment steps, all seeds", format_number(summary.env_steps)),
        ("environment steps trained per second", speed),
        ("seconds: import + compile + run + evaluate", seconds),
        ("run directory", shown(result.directory)),
    ]
    print_rich(summary_table(title, rows))


def show_sweep(result: Sweep, import_seconds: float) -> None:
    """Print a sweep's ranking, best first, with intervals, and where the time went."""
    num_settings, num_seeds = result.returns.shape
    config, has_failed = result.configs, bool(np.any(result.failed))
    has_near = result.noise is not None and result.target_return is not None
    title = f"{env_name(config)} · {config.algorithm.name} · {num_settings} settings · "
    title += f"{num_seeds} seeds each"
    table = Table("", *result.values, "return, IQM [95%]", title=title, box=SIMPLE_HEAD, **TITLE)
    if result.target_return is not None:
        table.add_column(f"≥ {result.target_return:g}", justify="right")
    if has_near:
        table.add_column(f"≈ {result.target_return:g}", justify="right")
    if has_failed:
        table.add_column("failed")
    for place, ranked in enumerate(result.ranking(), 1):
        row = [str(place), *(f"{value:.4g}" for value in ranked.values.values())]
        row.append(format_returns(ranked.episode_return, result.returns[ranked.setting]))
        if ranked.solved is not None:
            row.append(f"{ranked.solved:.0%}")
        if has_near:
            row.append(str(ranked.num_near_target))
        if has_failed:
            causes = f" ({'; '.join(ranked.causes)})" if ranked.causes else ""
            row.append(f"{ranked.num_failed}{causes}")
        table.add_row(*row)
    print_rich(table)
    print_rich(selection_note(result))
    times = result.times
    print_rich(
        f"seconds: import {import_seconds:.1f} + compile {times.compile:.1f} + run "
        f"{times.run:.1f} + evaluate {times.evaluate:.1f}; {shown(result.directory)}"
    )


def selection_note(result: Sweep) -> str:
    """What the first place of a ranking does not say, and how to find it out."""
    num_settings, num_seeds = result.returns.shape
    fresh = "purerl train, whose root is 0" if result.root else "purerl train --root 1"
    chosen = f"chosen among {num_settings} by {num_seeds} seeds each (root {result.root})"
    return f"{chosen}, the first looks better than it is; confirm it with other seeds: {fresh}"


def envs_table() -> Table:
    """Each registered environment, its spaces, and the algorithms with a preset for it."""
    columns = ("environment", "observations", "actions", "limit", "presets")
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for name in env_names():
        if name in DOWNLOADING:
            table.add_row(name, "", "", "", "needs a download")
            continue
        spec = check_env(*make_env(name))
        presets = ", ".join(algo for algo in FACTORIES if (name, algo) in PRESETS)
        limit = str(spec.max_steps or "")
        table.add_row(name, str(spec.obs_space), str(spec.action_space), limit, presets)
    return table


def summary_table(title: str, rows: Sequence[tuple[str, Any]]) -> Table:
    """A table of two columns: labels, and their values; a row whose value is None is left out."""
    table = Table(title=title, show_header=False, **TITLE)
    for label, value in rows:
        if value is not None:
            table.add_row(label, printable(str(value)))
    return table


def print_rich(renderable: Any) -> None:
    """Print text or a table with rich: names as they are, without markup, paths in one piece."""
    if isinstance(renderable, str):
        renderable = printable(renderable)
    Console(markup=False, emoji=False).print(renderable, soft_wrap=isinstance(renderable, str))


def plan_rows(plan: Plan) -> list[tuple[str, str | None]]:
    """The rows of the table of a plan; None where a value is not known."""
    fits = "yes" if plan.fits else "no"
    if not plan.fits and plan.max_seeds:
        fits += f"; in batches: --seed-batch {plan.max_seeds}"
    group = plan.devices_per_agent  # devices with the same seeds
    each = "each" if group == 1 else f"each {group} that share their environments"
    largest = f"about {plan.max_seeds:,}"
    if plan.num_devices > 1:
        per_group = plan.max_seeds // (plan.num_devices // group)
        largest += f", {per_group:,} on {each}{' device' * (group == 1)}"
    memory = f"{format_bytes(plan.memory)} of {format_bytes(plan.memory_limit)} that a run may use"
    update = [format_number(plan.flops, "FLOP")]
    if plan.bytes is not None:
        update += [f"{format_bytes(plan.bytes)} of traffic", f"{plan.launches:,.0f} launches"]
    bounds = {"memory": "the traffic, at the memory's speed", "arithmetic": "the FLOP, at peak"}
    temporaries = None if plan.temporaries is None else format_bytes(plan.temporaries)
    collectives = None
    if plan.collectives is not None:
        counts = (f"{count} {name}" for name, count in sorted(plan.collectives.items()))
        collectives = ", ".join(counts) or "none"
    return [
        ("fits", fits),
        ("devices", f"{plan.num_devices} × {plan.device}, {plan.seeds_per_device} seeds on {each}"),
        ("memory of a device", f"{memory} ({format_bytes(plan.device_memory)} in all)"),
        ("of which temporaries", temporaries),
        ("seeds that would fill the memory", largest),
        ("collectives in the program", collectives),
        ("an update on a device", ", ".join(update)),
        ("takes at least", f"{plan.seconds * 1e3:.3g} ms: {bounds[plan.bound_by]}"),
        ("environment steps a second, at most", format_number(plan.steps_per_second)),
        ("seconds to compile", f"{plan.compile_seconds:.0f}"),
        ("compiled with", ", ".join(f"{name} {number}" for name, number in plan.versions.items())),
        ("tried with", TRIED),
    ]
