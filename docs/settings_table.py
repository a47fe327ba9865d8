"""A table of all settings, made of the code where a page says `{{ settings }}`."""

from typing import Any

from purerl.cli.words import as_typed
from purerl.config.settings import ALGORITHM_DEFAULTS, Otherwise, all_settings, default_of


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table into a page; MkDocs calls this for each."""
    return markdown.replace("{{ settings }}", table()) if "{{ settings }}" in markdown else markdown


def table() -> str:
    """A row for each setting: its defaults, and what it is."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for name, setting in all_settings().items():
        values = {algo: shown(default_of(name, algo)) for algo in ALGORITHM_DEFAULTS}
        default = values["vpg"]
        if len({*values.values()}) > 1:
            default = ", ".join(f"{algo} {value}" for algo, value in values.items())
        rows.append(f"| `{name}` | {default} | {setting.text} |")
    return "\n".join(rows)


def shown(value: Any) -> str:
    """A default, as the table shows it."""
    if value is None:
        return "as it follows"
    if isinstance(value, Otherwise):
        return value.text
    return as_typed(value)
