"""What the commands of the command line do, and the tables that they print."""

import time
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from purerl import cli
from purerl.config import Config
from purerl.envs import check_env, env_names, make_env
from purerl.experiment import files
from purerl.experiment.display import short_list, show, show_interval, summary_table
from purerl.experiment.header import env_name
from purerl.experiment.memory import parse_bytes
from purerl.experiment.play import evaluate_run, render_run
from purerl.experiment.plot import comparison
from purerl.experiment.policies import load_policy, load_states, save_policy
from purerl.experiment.result import Run
from purerl.experiment.resume import resume
from purerl.experiment.run import run
from purerl.experiment.saved import compare_runs, read_run, write_scores, write_table
from purerl.experiment.statistics import iqm, score_interval
from purerl.experiment.sweeps import Sweep, run_sweep
from purerl.experiment.words import short
from purerl.presets import FACTORIES, PRESETS, preset
from purerl.sweep import LogUniform, Uniform
from purerl.sweep import sweep as settings_of


def carry_out(command: Any, start: float) -> None:
    """Do what a command says. It began at `start`."""
    if isinstance(command, cli.Train):
        train(command, start)
    elif isinstance(command, cli.Resume):
        go_on(command, start)
    elif isinstance(command, cli.Sweep):
        sweep(command, start)
    elif isinstance(command, cli.Evaluate):
        evaluate(command)
    elif isinstance(command, cli.Compare):
        compare(command)
    elif isinstance(command, cli.Export):
        export(command)
    elif isinstance(command, cli.Render):
        render(command)
    else:
        list_envs()


def train(options: cli.Train, start: float) -> None:
    """`purerl train`: the preset with the given settings, through `purerl.run`."""
    config = make_config(options.agent)
    how = options.how.options(options.agent.env) | options.keep.options()
    import_seconds = time.perf_counter() - start
    result = run(config, options.seeds, evaluate_every=options.evaluate_every, **how)
    show_result(result, import_seconds)


def go_on(options: cli.Resume, start: float) -> None:
    """`purerl resume`: through `purerl.resume`."""
    limit = None if options.memory_limit is None else parse_bytes(options.memory_limit)
    env, import_seconds = own_env(options.env), time.perf_counter() - start
    result = resume(
        options.run,
        env=env,
        total_steps=options.total_steps,
        force=options.force,
        seed_batch=options.seed_batch,
        memory_limit=limit,
        **options.keep.options(),
    )
    show_result(result, import_seconds)


def own_env(path: str | None) -> Any:
    """An environment by its import path, None without one."""
    return None if path is None else make_env(path)[0]


def evaluate(options: cli.Evaluate) -> None:
    """`purerl evaluate`: many episodes of every seed, and what they come to."""
    played = evaluate_run(
        options.run,
        episodes=options.episodes,
        sampled=options.sampled,
        seeds=options.seeds,
        env=own_env(options.env),
    )
    returns = np.where(played.failed, np.nan, played.evaluation.episode_return.mean(axis=1))
    known = returns[~np.isnan(returns)][:, None]
    if not len(known):
        raise ValueError(f"every seed of {str(options.run)!r} has failed.")
    figures = {
        "iqm": score_interval(known, iqm),
        "mean": score_interval(known, np.mean),
        "median": score_interval(known, np.median),
    }
    num_episodes = played.evaluation.episode_return.shape[1]
    kind = "sampled" if options.sampled else "greedy"
    rows = [
        (f"{kind} return, {name} over seeds [95% interval]", show_interval(figure))
        for name, figure in figures.items()
    ]
    target = played.plan.target_return
    if target is not None:
        rows.append((f"seeds at {target:g} or more", f"{np.mean(returns >= target):.0%}"))
    rows.append(("seeds, lowest to highest", f"{known.min():.1f} to {known.max():.1f}"))
    unfinished = int(np.sum(played.evaluation.num_unfinished))
    if unfinished:
        rows.append(("episodes that did not end", str(unfinished)))
    failed = [seed for seed, bad in zip(played.seed_ids, played.failed, strict=True) if bad]
    rows.append(("seeds that had stopped being finite", short_list(failed) or "none"))
    config = played.plan.config
    title = f"{env_name(config)} · {config.algorithm.name} · {len(returns)} seeds · "
    show(summary_table(f"{title}{num_episodes} episodes each · update {played.updates}", rows))
    written = {
        "updates": played.updates,
        "episodes": num_episodes,
        "actions": kind,
        **{name: figure._asdict() for name, figure in figures.items()},
        "num_unfinished": unfinished,
        "seeds": dict(zip(map(str, played.seed_ids), returns.tolist(), strict=True)),
    }
    files.write_json(options.run / f"evaluation_{kind}.json", written)


def compare(options: cli.Compare) -> None:
    """`purerl compare`: statistics of several runs side by side, and their curves."""
    compared = compare_runs(options.runs)
    first = compared[0].run
    table = Table("", *(each.run.directory.name for each in compared), box=SIMPLE_HEAD)
    table.title, table.title_justify, table.title_style = first.env, "left", "bold"
    table.padding = (0, 1, 0, 0)
    table.add_row("algorithm", *(each.run.algo for each in compared))
    table.add_row("seeds", *(str(len(each.run.returns)) for each in compared))
    if any(each.num_failed for each in compared):
        table.add_row("failed", *(str(each.num_failed) for each in compared))
    for name in ("iqm", "mean", "median"):
        figures = (show_interval(getattr(each, name)) for each in compared)
        table.add_row("IQM [95%]" if name == "iqm" else name, *figures)
    if any(each.solved is not None for each in compared):
        shares = ("" if each.solved is None else f"{each.solved:.0%}" for each in compared)
        table.add_row("seeds at target", *shares)
    if len(compared) > 1:
        chances = (
            "" if each.improvement is None else show_interval(each.improvement, 2)
            for each in compared
        )
        table.add_row("P(beats first)", *chances)
    show(table)
    comparison(compared).savefig(options.output)
    show(f"figure: {options.output}")


def export(options: cli.Export) -> None:
    """`purerl export`: what was asked for, each into its file."""
    if options.seed is None and options.metrics is None and options.scores is None:
        raise ValueError("export what? use --seed 3, --metrics FILE.csv or --scores FILE.npz.")
    if len(options.runs) > 1 and (options.seed is not None or options.metrics is not None):
        raise ValueError("runs: give one for --seed and --metrics; --scores alone takes several.")
    directory = next(iter(options.runs))
    written = []
    if options.seed is not None:
        plan, _, _ = load_states(directory, env=own_env(options.env))
        policy = load_policy(directory, options.seed, plan.config)
        path = options.output or directory / f"policy_{options.seed}.npz"
        save_policy(path, policy, plan.config)
        written.append(path)
    if options.metrics is not None:
        write_table(read_run(directory), options.metrics)
        written.append(options.metrics)
    if options.scores is not None:
        write_scores([read_run(each) for each in options.runs], options.scores)
        written.append(options.scores)
    for path in written:
        show(f"written: {path}")


def render(options: cli.Render) -> None:
    """`purerl render`: a GIF."""
    path, episode_return, length = render_run(
        options.run,
        options.seed,
        options.output,
        episode=options.episode,
        max_steps=options.max_steps,
        env=own_env(options.env),
    )
    show(f"{path}: {length} steps, return {episode_return:.1f}")


def sweep(options: cli.Sweep, start: float) -> None:
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


def make_config(agent: cli.Agent) -> Config:
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
    failed = short_list(summary.failed_seeds, 20) or "none"
    times = summary.times
    rows += [
        ("seeds that stopped being finite", failed),
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
