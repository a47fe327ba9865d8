"""Carries out the commands that read runs: evaluate, compare, export, render."""

import warnings
from pathlib import Path

from purerl.cli import arguments as cli
from purerl.cli import tables
from purerl.cli.agent_settings import env_from_path
from purerl.experiment.play.policies import LoadedRun, save_policy
from purerl.experiment.play.run_evaluation import evaluate_run
from purerl.experiment.report.comparison import compare_runs
from purerl.experiment.report.exports import write_scores, write_table
from purerl.experiment.report.format import format_value
from purerl.experiment.store.finished_run import read_run
from purerl.experiment.store.own_files import require_writable
from purerl.experiment.store.paths import as_directory


def evaluate(options: cli.Evaluate, _: float) -> None:
    """`purerl evaluate`: many episodes of every seed, and statistics of their returns."""
    actions = "sampled" if options.sampled else "greedy"
    path = options.output or written(options.run) / f"evaluation_{actions}.json"
    if Path(options.run).is_dir():  # else `evaluate_run` says that there is no run
        try:
            require_writable("output", path)
        except ValueError as error:
            if options.output is not None:
                raise
            warnings.warn(f"the evaluation is shown, and not kept: {error}", stacklevel=2)
            path = None
    evaluation = evaluate_run(
        options.run,
        episodes=options.episodes,
        sampled=options.sampled,
        seeds=options.seeds,
        max_steps=options.max_steps,
        env=env_from_path(options.env),
    )
    tables.print_rich(tables.evaluation_table(evaluation))
    if path is not None:
        evaluation.write(path)
        tables.print_rich(f"written: {path}")


def compare(options: cli.Compare, _: float) -> None:
    """`purerl compare`: statistics of several runs side by side, and their curves."""
    # Imported here: matplotlib takes a while.
    from purerl.experiment.report import figures

    figures.require_figure_name("output", options.output)
    require_writable("output", options.output)
    compared = compare_runs(options.runs, allow_different=options.allow_different)
    tables.print_rich(tables.comparison_table(compared))
    with figures.default_style():  # the current directory may be a stranger's run
        identities = [each.run.identity for each in compared]
        figures.save_figure(figures.comparison(compared), options.output, *identities)
    tables.print_rich(f"figure: {options.output}")


def export(options: cli.Export, _: float) -> None:
    """`purerl export`: a policy, the metrics or the scores, each into its file."""
    if not options.runs:
        raise ValueError("runs must name at least one run directory.")
    if options.seed is None and options.metrics is None and options.scores is None:
        raise ValueError("export what? use --seed 3, --metrics FILE.csv or --scores FILE.npz.")
    if len(options.runs) > 1 and (options.seed is not None or options.metrics is not None):
        raise ValueError("runs: give one for --seed and --metrics; --scores alone takes several.")
    if options.output is not None and options.seed is None:
        raise ValueError("output has no effect without --seed: it is the file of a policy.")
    for name in ("output", "metrics", "scores"):
        if getattr(options, name) is not None:
            require_writable(name, getattr(options, name))
    directory = next(iter(options.runs))
    if options.seed is not None:
        path = options.output or written(directory) / f"policy_{options.seed}.npz"
        loaded = LoadedRun.read(directory, env=env_from_path(options.env))
        policy, spec = loaded.policy(options.seed), loaded.spec
        save_policy(path, policy, spec.config, identity=spec.identity)
        tables.print_rich(f"written: {path}")
    if options.metrics is not None:
        write_table(read_run(directory), options.metrics)
        tables.print_rich(f"written: {options.metrics}")
    if options.scores is not None:
        write_scores([read_run(run_directory) for run_directory in options.runs], options.scores)
        tables.print_rich(f"written: {options.scores}")


def render(options: cli.Render, _: float) -> None:
    """`purerl render`: a GIF."""
    from purerl.experiment.play.rendering import render_run

    path, episode_return, length = render_run(
        options.run,
        options.seed,
        options.output,
        episode=options.episode,
        max_steps=options.max_steps,
        env=env_from_path(options.env),
    )
    tables.print_rich(f"{path}: {length} steps, return {format_value(episode_return)}")


def written(directory: str) -> Path:
    """A run directory as it was written, if it is a path."""
    as_directory(directory)
    return Path(directory)
