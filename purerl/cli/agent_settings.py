"""What is to be trained: the words of a command over a file of settings, or over a run's."""

import os
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from purerl.algorithms import name_of
from purerl.checks import short_repr
from purerl.cli.options import AgentChoice
from purerl.config.config import Config
from purerl.config.listing import settings_of
from purerl.config.presets import preset
from purerl.config.settings import all_settings, check_names
from purerl.envs import make_env
from purerl.experiment.store.directory import read_header
from purerl.experiment.store.paths import as_directory
from purerl.experiment.store.spec import RunSpec


class AgentSettings(NamedTuple):
    """An environment, an algorithm and settings by name, as `preset` takes them."""

    env: str
    algo: str
    settings: dict[str, Any]
    sources: dict[str, str]
    """Where a setting was given, by name, if not on the command line: a file or a run."""

    def config(self) -> Config:
        return preset(self.env, self.algo, **self.settings)


def read_agent(options: AgentChoice) -> AgentSettings:
    """The settings of a command, of which those on the command line win.

    **Raises:** `ValueError` where a file is no TOML of settings, there is no such run, or both are
    given; `OSError` where a file cannot be read.
    """
    if options.config is not None and options.like is not None:
        raise ValueError("config has no effect beside like; leave one of them out.")
    read: dict[str, Any] = {}
    if options.config is not None:
        read = _of_file(options.config)
    elif options.like is not None:
        read = _of_run(options.like, options.env)
    given = options.settings()
    where = str(options.config or options.like)
    if options.algo is not None and read.get("algo", options.algo) != options.algo:
        raise ValueError(
            f"algo = {options.algo!r} does not fit {where!r}, whose settings are of "
            f"{read['algo']}; leave it out."
        )
    env = options.env or read.pop("env", "CartPole-v1")
    algo = options.algo or read.pop("algo", "vpg")
    read = {name: value for name, value in read.items() if name not in ("env", "algo")}
    find_own_modules(env)
    sources = {name: where for name in read if name not in given}
    return AgentSettings(env, algo, {**read, **given}, sources)


def env_from_path(path: str | None) -> Any:
    """An environment by its import path, None without one."""
    find_own_modules(path)
    return None if path is None else make_env(path)[0]


def find_own_modules(env: str | None) -> None:
    """Let `package.module:Name` mean a module in the current directory too, after all others.

    Without such a name the current directory stays out: it may be a stranger's run, and a module
    in it could have any name.
    """
    if env is not None and ":" in env and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _of_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, with `env` and `algo`."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config = {str(path)!r} cannot be read as TOML: {error}.") from None
    for name in ("env", "algo"):
        if not isinstance(read.get(name, ""), str):
            raise ValueError(f"{name} = {short_repr(read[name])} must be a name.")
    check_names({name: value for name, value in read.items() if name not in ("env", "algo")})
    return {name: _as_setting(name, value) for name, value in read.items()}


def _as_setting(name: str, value: Any) -> Any:
    """A value of TOML as the setting that it stands for: 1e6 is a whole number, a list a tuple."""
    if isinstance(value, list):
        return tuple(value)
    setting = all_settings().get(name)
    is_count = setting is not None and setting.type in (int, int | None)
    if is_count and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _of_run(directory: str, env: str | None) -> dict[str, Any]:
    """The settings of a run, with `env` and `algo`; `env` is its own environment's import path."""
    header = read_header(as_directory(directory))
    config = RunSpec.from_header(header, env=env_from_path(env)).config
    settings = settings_of(config)
    for name in ("policy_optimizer", "baseline_optimizer"):
        settings.pop(name, None)  # clipped_adam: a header rebuilds no other
    return {"env": header["env"], "algo": name_of(config.algorithm), **settings}
