"""A table of all settings, made of the code where a page says `{{ settings }}`."""

import ast
import itertools
import math
from pathlib import Path
from typing import Any, get_type_hints

import purerl
from purerl.cli import options
from purerl.config.presets import FACTORIES
from purerl.config.settings import Settings

# What only Python has: the page that shows how it is made.
OWN = {
    "policy": "[a network](../own.md#a-network)",
    "baseline": "[a network](../own.md#a-network)",
    "optimizer": "[an optimiser](../own.md#an-optimiser) for both networks",
    "policy_optimizer": "[an optimiser](../own.md#an-optimiser)",
    "baseline_optimizer": "[an optimiser](../own.md#an-optimiser)",
    "algorithm": "[an algorithm](../own.md#a-loss), such as one with another loss",
    "own": "[hyperparameters of an own loss](../own.md#a-loss), by name",
    "env_params": "[parameters](../own.md#an-environment-with-parameters) of the environment",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table into a page; MkDocs calls this for each."""
    return markdown.replace("{{ settings }}", table()) if "{{ settings }}" in markdown else markdown


def table() -> str:
    """A row for each setting: its defaults, and what it is."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    configs = {name: factory("CartPole-v1") for name, factory in FACTORIES.items()}
    told = meanings()
    for name in get_type_hints(Settings):
        values = {algo: shown(name, config) for algo, config in configs.items()}
        default = values["vpg"]
        if len({*values.values()}) > 1:
            default = ", ".join(f"{algo} {value}" for algo, value in values.items())
        rows.append(f"| `{name}` | {default} | {told.get(name) or OWN[name]} |")
    return "\n".join(rows)


def meanings() -> dict[str, str]:
    """What the command line says of each setting."""
    module = ast.parse(Path(options.__file__).read_text())
    (body,) = (
        node.body
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == "AgentOptions"
    )
    return {
        line.target.id: " ".join(text.value.value.split())
        for line, text in itertools.pairwise(body)
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def shown(name: str, config: purerl.Config) -> str:
    """The default of a setting in a config, as the table shows it."""
    if name == "rollout_length" and not config.algorithm.has_baseline:
        return "by the time limit"
    if name == "env_params":
        return "the environment's"
    if name in OWN:
        return "none" if name == "own" else "purerl's"
    if name == "schedule":
        return ", ".join(f"{name}: {shape}" for name, shape in config.schedule) or "none"
    own = {"total_steps": config.asked.total_steps, "clip_value": False}
    holders = (config, config.hyper, config.policy)  # `hidden` and the like are the network's
    value = own.get(name, next((vars(x)[name] for x in holders if name in vars(x)), None))
    if isinstance(value, bool | int | tuple):
        return str(value)
    return "none" if value is None else "∞" if math.isinf(value) else f"{float(value):g}"
