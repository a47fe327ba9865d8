"""Carries out the commands: each is a call of the library, whose result is printed."""

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from purerl.cli import arguments as cli
from purerl.cli import bench_tables, setting_tables, tables
from purerl.cli.agent_settings import find_own_modules, read_agent
from purerl.cli.toml import to_toml
from purerl.config.listing import settings_of
from purerl.config.presets import FACTORIES
from purerl.config.sweeps import LogUniform, Uniform
from purerl.config.sweeps import sweep as make_settings
from purerl.envs import make_env
from purerl.experiment.failures import AllAgentsFailed
from purerl.experiment.hosts.devices import parse_mesh
from purerl.experiment.hosts.memory import parse_bytes
from purerl.experiment.hosts.processes import is_main_process
from purerl.experiment.hosts.sizes import require_room
from purerl.experiment.play.policies import LoadedRun, save_policy
from purerl.experiment.play.run_evaluation import evaluate_run
from purerl.experiment.report.comparison import compare_runs
from purerl.experiment.report.exports import write_scores, write_table
from purerl.experiment.report.format import format_value
from purerl.experiment.resuming import resume
from purerl.experiment.runner import run
from purerl.experiment.store import files
from purerl.experiment.store.finished_run import read_run
from purerl.experiment.store.own_files import require_writable
from purerl.experiment.store.paths import as_directory
from purerl.experiment.sweep_runner import run_sweep
from purerl.measuring.benches import FIGURE, RESULT, bench
from purerl.planning.plans import plan


def train(options: cli.Train, began: float) -> None:
    """`purerl train`: the preset with the given settings, through `purerl.run`."""
    agent = read_agent(options.agent)
    config = agent.config()
    arguments = options.training.arguments(agent.env) | options.saving.arguments()
    import_seconds = time.perf_counter() - began  # with those of the config's checks
    with showing_what_failed(tables.show_result, import_seconds):
        result = run(config, options.seeds, evaluate_every=options.evaluate_every, **arguments)
    if is_main_process():
        tables.show_result(result, import_seconds)


def resume_run(options: cli.Resume, began: float) -> None:
    """`purerl resume`: through `purerl.resume`."""
    limit = None if options.memory_limit is None else parse_bytes(options.memory_limit)
    mesh = None if options.devices is None else parse_mesh(options.devices)
    env, import_seconds = env_from_path(options.env), time.perf_counter() - began
    with showing_what_failed(tables.show_result, import_seconds):
        result = resume(
            options.run,
            env=env,
            total_steps=options.total_steps,
            force=options.force,
            seed_batch=options.seed_batch,
            memory_limit=limit,
            mesh=mesh,
            **options.saving.arguments(),
        )
    if is_main_process():
        tables.show_result(result, import_seconds)


@contextlib.contextmanager
def showing_what_failed(
    show: Callable[[Any, float], None], import_seconds: float
) -> Iterator[None]:
    """Print the result of a run or a sweep of which no agent is left too; its error goes on."""
    try:
        yield
    except AllAgentsFailed as error:
        if is_main_process():
            show(error.run, import_seconds)
        raise


def written(directory: str) -> Path:
    """A run directory as it was written, if it is a path."""
    as_directory(directory)
    return Path(directory)


def env_from_path(path: str | None) -> Any:
    """An environment by its import path, None without one."""
    find_own_modules(path)
    return None if path is None else make_env(path)[0]


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


def show(options: cli.Show, _: float) -> None:
    """`purerl show`: every setting, where it comes from, and what follows."""
    agent = read_agent(options.agent)
    if options.toml is not None:
        require_writable("toml", options.toml)
    config = agent.config()
    listed = settings_of(config)
    sources = {name: agent.sources.get(name) or config.asked.source(name) for name in listed}
    tables.print_rich(setting_tables.settings_table(config, listed, sources))
    rows = setting_tables.consequences(config, options.seeds)
    tables.print_rich(tables.summary_table("what follows", rows))
    if options.toml is not None:
        text = to_toml(agent.env, agent.algo, listed, sources)
        files.write_atomically(options.toml, lambda file: file.write(text.encode()))
        tables.print_rich(f"written: {options.toml}")


def show_plan(options: cli.Plan, _: float) -> None:
    """`purerl plan`: what a run would need on machines that are not here."""
    agent = read_agent(options.agent)
    if options.json is not None:
        require_writable("json", options.json)
    planned = plan(
        agent.env,
        agent.algo,
        target=options.target,
        seeds=options.seeds,
        devices=options.devices,
        **agent.settings,
    )
    title = f"{planned.env} · {planned.algo} · {planned.seeds} seeds · {planned.target}"
    tables.print_rich(tables.summary_table(title, tables.plan_rows(planned)))
    if options.json is not None:
        files.write_json(options.json, dataclasses.asdict(planned))
        tables.print_rich(f"written: {options.json}")


def show_bench(options: cli.Bench, _: float) -> None:
    """`purerl bench`: every point in a line as it is there, then all in a table."""
    limit = None if options.memory_limit is None else parse_bytes(options.memory_limit)
    find_own_modules(options.env)
    directory = Path(options.directory or _unused_bench(options.env))
    result = bench(
        options.env,
        options.algo,
        seeds=options.seeds,
        num_envs=options.num_envs,
        updates=options.updates,
        repeats=options.repeats,
        memory_limit=limit,
        directory=directory,
        progress=lambda point: tables.print_rich(bench_tables.point_line(point)),
        **options.settings(),
    )
    tables.print_rich(bench_tables.bench_table(result))
    tables.print_rich(bench_tables.bench_notes(result))
    drawn = f" and {FIGURE}" * (directory / FIGURE).exists()
    tables.print_rich(f"written: {directory / RESULT}{drawn}")


def _unused_bench(env: str) -> Path:
    """`runs/bench-ENVIRONMENT`, numbered from 2 on where that has a bench."""
    first = Path("runs", f"bench-{env.rpartition(':')[2].replace('/', '-')}")
    directory, number = first, 1
    while (directory / RESULT).exists():
        number += 1
        directory = first.with_name(f"{first.name}-{number}")
    return directory


def sweep(options: cli.Sweep, began: float) -> None:
    """`purerl sweep`: every seed with every setting, through `purerl.run_sweep`."""
    agent = read_agent(options.agent)
    config = agent.config()
    values: dict[str, Any] = {}
    for text in options.values:
        name, column = parse_values(text)
        if name in values:
            raise ValueError(f"values name {name} twice; give all its values at once.")
        values[name] = column
    root = options.training.root or 0
    require_room(config, options.seeds, settings=_num_settings(options, values))
    settings = make_settings(config, zip=options.zip, draws=options.draws, root=root, **values)
    import_seconds = time.perf_counter() - began
    with showing_what_failed(tables.show_sweep, import_seconds):
        result = run_sweep(settings, options.seeds, **options.training.arguments(agent.env))
    tables.show_sweep(result, import_seconds)


def _num_settings(options: cli.Sweep, values: dict[str, Any]) -> int:
    """How many settings a sweep will have; 1 where it will be refused."""
    if options.draws is not None:
        return max(1, options.draws)
    sizes = [len(column) for column in values.values()]
    return sizes[0] if options.zip else math.prod(sizes)


def parse_values(text: str) -> tuple[str, Any]:
    """`NAME=1,2` as the name and numbers; `NAME=1..2` or `NAME=log:1..2` as it and a range."""
    name, _, values = text.partition("=")
    try:
        if ".." in values:
            distribution = LogUniform if values.startswith("log:") else Uniform
            low, high = values.removeprefix("log:").split("..")
            return name, distribution(float(low), float(high))
        return name, [float(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(
            f"values = {text!r} cannot be read; write NAME=1,2, NAME=1..2 or NAME=log:1..2."
        ) from None


def list_envs(options: cli.Envs, _: float) -> None:
    """`purerl envs`: the environments that train."""
    tables.print_rich(tables.envs_table())
    tables.print_rich(
        f"Each trains with {', '.join(FACTORIES)}, with a preset or with an algorithm's defaults."
    )


COMMANDS: dict[type, Callable[[Any, float], None]] = {
    cli.Train: train,
    cli.Resume: resume_run,
    cli.Sweep: sweep,
    cli.Evaluate: evaluate,
    cli.Compare: compare,
    cli.Export: export,
    cli.Render: render,
    cli.Show: show,
    cli.Plan: show_plan,
    cli.Bench: show_bench,
    cli.Envs: list_envs,
}


def execute(command: Any, began: float) -> None:
    """Carry out a command; `began` is the process's start by `time.perf_counter`."""
    COMMANDS[type(command)](command, began)
