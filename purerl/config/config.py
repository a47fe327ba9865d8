"""The settings of a training run: what is traced, what is static, and the checks of both."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Unpack

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree

from purerl.algorithms import Algorithm, monte_carlo_estimate
from purerl.checks import (
    ceil_div,
    require_bool,
    require_divisor,
    require_int32,
    require_positive_int,
    short_repr,
)
from purerl.config.components import (
    check_algorithm,
    check_baseline,
    check_hyper,
    check_optimizer,
    check_policy,
)
from purerl.config.effects import reads, require_own, require_used
from purerl.config.fields import (
    filled_env_params,
    following,
    has_no_baseline,
    make_fields,
    to_array,
)
from purerl.config.listing import shown_config
from purerl.config.optimizers import Optimizers, clipped_adam
from purerl.config.schedules import sorted_schedule
from purerl.config.settings import (
    HYPER_DEFAULTS,
    Asked,
    Settings,
    check_names,
    is_following,
    shows_settings,
)
from purerl.config.swept import first_setting, require_same_sweep
from purerl.envs import (
    Discrete,
    EnvSpec,
    check_env,
    made_by_name,
    make_env,
    spec_in_force,
    time_limit,
)
from purerl.types import Env, Estimate, Hyperparams

COUNTS = (
    "num_envs",
    "rollout_length",
    "num_updates",
    "epochs",
    "baseline_epochs",
    "num_minibatches",
    "log_every",
)


class Config(eqx.Module):
    """Everything that `train` needs besides a key; made by a factory such as `purerl.vpg`.

    `hyper` and `env_params` are traced: `vmap` maps over them, and a new value never recompiles.
    The rest is static and hashable: another value is another program.

    **Raises:** `ValueError`, in one line, for a field that cannot be.
    """

    hyper: Hyperparams
    env_params: PyTree
    env: Env = eqx.field(static=True)
    algorithm: Algorithm = eqx.field(static=True)
    policy: Callable[..., eqx.Module] = eqx.field(static=True)
    baseline: Callable[..., eqx.Module] | None = eqx.field(static=True)
    policy_optimizer: Callable[..., Any] = eqx.field(static=True)
    baseline_optimizer: Callable[..., Any] | None = eqx.field(static=True)
    num_envs: int = eqx.field(static=True)
    rollout_length: int = eqx.field(static=True)
    num_updates: int = eqx.field(static=True)
    epochs: int = eqx.field(static=True)
    baseline_epochs: int = eqx.field(static=True)
    num_minibatches: int = eqx.field(static=True)
    lookahead: int | None = eqx.field(static=True)
    normalize_advantage: bool = eqx.field(static=True)
    normalize_obs: bool = eqx.field(static=True)
    normalize_reward: bool = eqx.field(static=True)
    schedule: tuple[tuple[str, str], ...] = eqx.field(static=True)
    log_every: int = eqx.field(static=True)
    asked: Asked = eqx.field(static=True)

    def __check_init__(self):
        _check_sizes(self)
        _check_budget(self)
        check_hyper(self.hyper)
        _require_hashable(self)
        _check_components(self, spec_in_force(self.env, self.env_params, self.env_spec))

    @shows_settings(otherwise="as it is")
    def replace(self, **settings: Unpack[Settings]) -> "Config":
        """Change settings, by the names of the factories and with their checks.

        The budget stays the `total_steps` that were asked for. What a factory derives from other
        settings, such as the rollout's length of REINFORCE, is derived anew unless it was given.

        **Raises:** `ValueError` for a setting that is out of range or without effect.
        """
        check_names(settings)
        asked = self.asked.with_given(settings)
        changes = {name: v for name, v in settings.items() if not is_following(name, v)}
        names = [field.name for field in dataclasses.fields(self)]
        current: dict[str, Any] = {name: getattr(self, name) for name in names}
        current |= {name: getattr(self.hyper, name) for name in (*HYPER_DEFAULTS, "own")}
        current["total_steps"] = asked.total_steps
        if "env_params" in changes:
            changes["env_params"] = filled_env_params(self.env_params, changes["env_params"])
        if self.baseline_optimizer is None:  # as a factory would have made it of what was given
            is_of_both = asked.source("optimizer") == "given"
            current["baseline_optimizer"] = self.policy_optimizer if is_of_both else clipped_adam
        merged = {**current, **changes}
        env_params = jax.tree.map(to_array, merged["env_params"])
        follows = set(asked.follows)
        if has_no_baseline(merged["algorithm"]) and asked.source("rollout_length") == "default":
            follows.add("rollout_length")
        current |= following(merged, env_params, follows=follows)
        fields = make_fields(current, changes)
        config = dataclasses.replace(self, asked=asked, **fields)
        require_used(config, changes)
        require_same_sweep(self, config, changes)
        return config

    def __repr__(self) -> str:
        return shown_config(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Config":
        return jax.tree.map(lambda leaf: copy.deepcopy(leaf, memo), self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Environments that have a name are pickled by it: those of one process are one object."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        made = made_by_name(self.env)
        if made is not None:
            del fields["env"]
        return _unpickled, (fields, made)

    @property
    def env_steps_per_update(self) -> int:
        return self.num_envs * self.rollout_length

    @property
    def env_steps(self) -> int:
        """The environment steps that will be trained: those of whole updates."""
        return self.num_updates * self.env_steps_per_update

    @property
    def num_records(self) -> int:
        """How many records of metrics a run gives: one every `log_every` updates, or at the end."""
        return ceil_div(self.num_updates, self.log_every)

    @property
    def env_spec(self) -> EnvSpec:
        """The environment's spaces and time limit, by shapes alone."""
        return check_env(self.env, first_setting(self).env_params)

    @property
    def time_limit(self) -> int | None:
        """The steps after which `env_params` truncate an episode; None where they do not say."""
        return time_limit(self.env_params)

    @property
    def optimizers(self) -> Optimizers:
        """The optimisers of both networks, made anew from the traced hyperparameters.

        Only their states are carried.
        """
        hyper = self.hyper

        def make(optimizer, learning_rate):
            return optax.with_extra_args_support(optimizer(learning_rate, hyper.max_grad_norm))

        policy = make(self.policy_optimizer, hyper.policy_learning_rate)
        if self.baseline_optimizer is None:
            return Optimizers(policy, None)
        return Optimizers(policy, make(self.baseline_optimizer, hyper.baseline_learning_rate))

    @property
    def estimate(self) -> Callable[..., Estimate]:
        """The algorithm's estimate; that of REINFORCE knows the look-ahead and the time limit."""
        if self.algorithm.estimate is not monte_carlo_estimate:
            return self.algorithm.estimate
        # Not `time_limit`, which is None where the limit is traced.
        limit = getattr(self.env_params, "max_steps_in_episode", None)
        return functools.partial(monte_carlo_estimate, lookahead=self.lookahead, time_limit=limit)


def _unpickled(fields: dict[str, Any], made: tuple[str, dict[str, Any]] | None) -> Config:
    """The config of its fields, and of the arguments of `make_env`."""
    config = object.__new__(Config)
    if made is not None:
        fields["env"] = make_env(made[0], **made[1])[0]
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    return config


def with_updates(config: Config, num_updates: int) -> Config:
    """The config with another budget, in updates; nothing else changes."""
    total_steps = num_updates * config.env_steps_per_update
    asked = dataclasses.replace(config.asked, total_steps=total_steps)
    return dataclasses.replace(config, num_updates=num_updates, asked=asked)


def _check_budget(config: Config) -> None:
    asked = config.asked.total_steps
    if ceil_div(asked, config.env_steps_per_update) != config.num_updates:
        raise ValueError(
            f"num_updates = {config.num_updates}, of {config.env_steps_per_update} steps each, is "
            f"not the budget of total_steps = {asked}; use config.replace(total_steps=…), or the "
            f"like, which keeps both together."
        )


def _check_sizes(config: Config) -> None:
    for name in COUNTS:
        require_int32(name, getattr(config, name))
    require_int32("num_envs * rollout_length", config.env_steps_per_update)
    for name in ("normalize_advantage", "normalize_obs", "normalize_reward"):
        require_bool(name, getattr(config, name))
    if config.lookahead is not None:
        require_positive_int("lookahead", config.lookahead)
        if config.lookahead > config.rollout_length:
            raise ValueError(
                f"lookahead = {config.lookahead} is beyond rollout_length = "
                f"{config.rollout_length}; use {config.rollout_length} or less."
            )
    if sorted_schedule(config.schedule) != config.schedule:
        raise ValueError(
            f"schedule = {short_repr(config.schedule)} must be sorted pairs; use a factory."
        )
    if not isinstance(config.algorithm, Algorithm):
        raise ValueError(
            f"algorithm = {short_repr(config.algorithm)} must be an Algorithm; use purerl.VPG, "
            f"purerl.REINFORCE, or one made of them with _replace."
        )
    steps = config.env_steps_per_update
    require_divisor("num_minibatches", config.num_minibatches, "num_envs * rollout_length", steps)


def _require_hashable(config: Config) -> None:
    for field in dataclasses.fields(config):
        if field.metadata.get("static", False):
            try:
                hash(getattr(config, field.name))
            except TypeError:
                raise ValueError(
                    f"{field.name} = {short_repr(getattr(config, field.name))} is not hashable; "
                    f"use a function or a frozen dataclass."
                ) from None


def _check_components(config: Config, spec: EnvSpec) -> None:
    if config.normalize_obs and isinstance(spec.obs_space, Discrete):
        raise ValueError(
            f"normalize_obs = True does not fit observations from {spec.obs_space}, which are "
            f"names and no quantities; leave it out."
        )
    action = check_policy(config.policy, spec)
    check_optimizer("policy_optimizer", config.policy_optimizer, config.policy, spec)
    if config.algorithm.has_baseline:
        assert config.baseline is not None
        assert config.baseline_optimizer is not None
        check_baseline(config.baseline, spec)
        check_optimizer("baseline_optimizer", config.baseline_optimizer, config.baseline, spec)
    for name, _ in config.schedule:
        require_own(f"schedule: {name!r}", name, config.hyper)
        network = name.removesuffix("_learning_rate")
        has_rate = network == "policy" or (network == "baseline" and config.algorithm.has_baseline)
        if has_rate and not reads(config, name, ("update",)):
            raise ValueError(
                f"schedule: {name!r} has no effect: the {network}'s optimizer keeps its rate in "
                f"its state; give one that reads the rate at each step, such as "
                f"optax.adam(learning_rate)."
            )
    check_algorithm(config.algorithm, spec, action, first_setting(config).hyper)
