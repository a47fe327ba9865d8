"""How `purerl show` looks: the settings of an agent, and what follows from them."""

from collections.abc import Mapping
from typing import Any

import jax
from rich.box import SIMPLE_HEAD
from rich.table import Table

from purerl.algorithms import monte_carlo_estimate, needed_lookahead
from purerl.checks import printable
from purerl.cli.options import TrainingOptions
from purerl.cli.tables import TITLE
from purerl.config.components import parameter_shapes
from purerl.config.config import Config
from purerl.config.listing import shown_value
from purerl.experiment.hosts.memory import tree_bytes
from purerl.experiment.hosts.sizes import rollout_bytes, state_shape
from purerl.experiment.programs import compile_programs
from purerl.experiment.report.format import format_bytes
from purerl.experiment.store.header import env_name
from purerl.experiment.store.spec import choose_chunk_length
from purerl.seeds import seed_keys
from purerl.training import TrainState


def settings_table(config: Config, listed: Mapping[str, Any], sources: Mapping[str, str]) -> Table:
    """Every setting, its value, and where it comes from."""
    title = f"{printable(env_name(config))} · {config.algorithm.name}"
    table = Table("setting", "value", "from", title=title, box=SIMPLE_HEAD, **TITLE)
    for name, value in listed.items():
        table.add_row(name, printable(shown_value(value)), printable(sources[name]))
    return table


def consequences(config: Config, seeds: int, *, compiled: bool = False) -> list[tuple[str, Any]]:
    """What follows from the settings: by counting, or the memory as `compiled` programs plan it."""
    state, updates = state_shape(config), config.num_updates

    def gradient_steps(epochs):
        steps = epochs * config.num_minibatches
        return f"{steps} an update, {steps * updates:,} in all"

    rows = [
        ("updates", f"{updates:,} of {config.env_steps_per_update:,} env steps"),
        ("env steps of a seed", f"{config.env_steps:,}"),
        ("updates of a record", f"{config.log_every:,}" if config.log_every > 1 else None),
        ("rows of a minibatch", f"{config.env_steps_per_update // config.num_minibatches:,}"),
        ("gradient steps of the policy", gradient_steps(config.epochs)),
        ("parameters of the policy", f"{_num_parameters(config, config.policy):,}"),
    ]
    if config.algorithm.has_baseline:
        rows += [
            ("gradient steps of the baseline", gradient_steps(config.baseline_epochs)),
            ("parameters of the baseline", f"{_num_parameters(config, config.baseline):,}"),
        ]
    elif config.algorithm.estimate is monte_carlo_estimate:
        needed = needed_lookahead(config.rollout_length, config.lookahead)
        share = (min(needed, config.time_limit or needed) - 1) / config.rollout_length
        rows.append(("steps that are not learnt from", f"at most {share:.0%}"))
    return [*rows, (f"memory of {seeds} seeds", _memory(config, state, seeds, compiled))]


def _memory(config: Config, state: TrainState, seeds: int, compiled: bool) -> str:
    """The memory of a run: the least, or what its largest program plans on each device."""
    if not compiled:
        least = seeds * (tree_bytes(state) + rollout_bytes(state, config))
        return f"at least {format_bytes(least)}; --memory plans it"
    programs = compile_programs(
        seed_keys(0, seeds),
        config,
        None,
        chunk_updates=choose_chunk_length(config, None),
        episodes=TrainingOptions.evaluation_episodes,
    )
    batches = f", in batches of {programs.seed_batch}" * (programs.seed_batch < seeds)
    return f"{format_bytes(programs.memory)} planned on each device{batches}"


def _num_parameters(config: Config, network: Any) -> int:
    """The numbers that an optimiser moves."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameter_shapes(network, config.env_spec)))
