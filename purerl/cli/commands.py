"""Carries out the commands: each is a call of the library, whose result is printed."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from purerl.cli import arguments as cli
from purerl.cli import bench_tables, setting_tables, tables
from purerl.cli.agent_settings import env_from_path, find_own_modules, read_agent
from purerl.cli.run_commands import compare, evaluate, export, render
from purerl.cli.toml import to_toml
from purerl.config.listing import settings_of
from purerl.config.presets import FACTORIES
from purerl.config.sweeps import LogUniform, Uniform
from purerl.config.sweeps import sweep as make_settings
from purerl.experiment.failures import AllAgentsFailed
from purerl.experiment.hosts.devices import parse_mesh
from purerl.experiment.hosts.memory import parse_bytes
from purerl.experiment.hosts.processes import is_main_process
from purerl.experiment.hosts.sizes import require_room
from purerl.experiment.resuming import resume
from purerl.experiment.runner import run
from purerl.experiment.store import files
from purerl.experiment.store.own_files import require_writable
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


def show(options: cli.Show, _: float) -> None:
    """`purerl show`: every setting, where it comes from, and what follows."""
    agent = read_agent(options.agent)
    if options.toml is not None:
        require_writable("toml", options.toml)
    config = agent.config()
    listed = settings_of(config)
    sources = {name: agent.sources.get(name) or config.asked.source(name) for name in listed}
    tables.print_rich(setting_tables.settings_table(config, listed, sources))
    rows = setting_tables.consequences(config, options.seeds, compiled=options.memory)
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
