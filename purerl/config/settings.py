"""Settings by name, and the fields of a `Config` that they become."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, get_type_hints

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from purerl.algorithms import Algorithm
from purerl.checks import ceil_div, require_bool, require_int32, require_positive_int, short_repr
from purerl.config.schedules import sorted_schedule
from purerl.losses import clipped_squared_error, squared_error
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.networks.values import by_value
from purerl.types import Hyperparams, default_float


class Settings(TypedDict, total=False):
    """The settings that a factory takes besides the environment; all have a default."""

    total_steps: int
    num_envs: int
    rollout_length: int
    policy_learning_rate: float
    baseline_learning_rate: float
    discount: float
    gae_lambda: float
    clip_eps: float
    clip_value: bool
    entropy_coef: float
    max_grad_norm: float
    target_kl: float
    epochs: int
    baseline_epochs: int
    num_minibatches: int
    lookahead: int
    normalize_advantage: bool
    normalize_obs: bool
    normalize_reward: bool
    schedule: Mapping[str, str]
    log_every: int
    hidden: tuple[int, ...]
    std_from_obs: bool
    squash: bool
    policy: Callable[..., eqx.Module]
    baseline: Callable[..., eqx.Module]
    optimizer: Callable[..., Any]
    policy_optimizer: Callable[..., Any]
    baseline_optimizer: Callable[..., Any]
    algorithm: Algorithm
    own: Mapping[str, float]
    env_params: PyTree


HYPER_DEFAULTS: dict[str, float] = {
    "policy_learning_rate": 3e-3,
    "baseline_learning_rate": 5e-3,
    "discount": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "entropy_coef": 0.0,
    "max_grad_norm": 0.5,
    "target_kl": np.inf,
}

STATIC_DEFAULTS: dict[str, Any] = {
    "total_steps": 300_000,
    "num_envs": 16,
    "rollout_length": 128,
    "epochs": 1,
    "baseline_epochs": 1,
    "num_minibatches": 1,
    "lookahead": None,
    "normalize_advantage": True,
    "normalize_obs": False,
    "normalize_reward": False,
    "schedule": {},
    "log_every": 1,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What a config was asked for, beside what was made of it.

    It equals any other: configs of the same program are equal.
    """

    total_steps: int
    given: frozenset[str] = frozenset()
    """The names of the settings that the user gave."""
    preset: frozenset[str] = frozenset()
    """The names of those that a preset gave."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asked)

    def __hash__(self) -> int:
        return hash(Asked)

    def with_given(self, settings: Mapping[str, Any]) -> "Asked":
        """The same, and settings that are given now."""
        total_steps = as_int(settings.get("total_steps", self.total_steps))
        return Asked(total_steps, self.given | frozenset(settings), self.preset)

    def source(self, name: str) -> Literal["given", "preset", "default"]:
        """Where a setting comes from."""
        if name in self.given:
            return "given"
        return "preset" if name in self.preset else "default"


def check_names(settings: Mapping[str, Any]) -> None:
    """Refuse names that are no settings, and name the nearest."""
    known = get_type_hints(Settings)
    for name in settings:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise ValueError(
                f"{name} is not a setting; did you mean {' or '.join(nearest)}?"
                if nearest
                else f"{name} is not a setting; use one of {', '.join(known)}."
            )


def make_fields(current: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config, but its environment, from settings over what stands so far.

    **Arguments:** `current` has hyperparameters and fields by name, with `total_steps`; `settings`
    are those that are given, and checked by name.
    """
    settings = {name: as_int(by_value(name, value)) for name, value in settings.items()}
    merged = {**current, **settings}
    algorithm = _algorithm(merged["algorithm"], settings)
    for name in STATIC_DEFAULTS:
        if isinstance(merged[name], jax.Array):
            raise ValueError(
                f"{name} = {short_repr(merged[name])} is an array of jax, but must be known before "
                f"anything is traced; give a number of Python or NumPy."
            )
    for name in ("total_steps", "num_envs", "rollout_length"):
        require_positive_int(name, merged[name])
    steps = merged["num_envs"] * merged["rollout_length"]
    has_baseline = not has_no_baseline(algorithm)
    policy, baseline = _networks(merged["policy"], merged["baseline"], settings, has_baseline)
    policy_optimizer, baseline_optimizer = _optimizers(merged, settings, has_baseline)

    def number(name):  # what stands so far may be the values of a sweep
        make = functools.partial(_scalar, name) if name in settings else _float
        return make(merged[name])

    return {
        **{name: merged[name] for name in STATIC_DEFAULTS if name != "total_steps"},
        "hyper": Hyperparams(
            **{name: number(name) for name in HYPER_DEFAULTS},
            own=_own(merged["own"]) if "own" in settings else merged["own"],
        ),
        "policy_optimizer": policy_optimizer,
        "baseline_optimizer": baseline_optimizer,
        "env_params": jax.tree.map(to_array, merged["env_params"]),
        "algorithm": algorithm,
        "policy": policy,
        "baseline": baseline,
        "num_updates": ceil_div(merged["total_steps"], steps),
        "schedule": sorted_schedule(merged["schedule"]),
    }


def has_no_baseline(algorithm: Any) -> bool:
    """Whether an algorithm is one, and has no baseline."""
    return not getattr(algorithm, "has_baseline", True)


def look_ahead_length(limit: int | None, merged: Mapping[str, Any]) -> int:
    """A rollout twice the time limit, or shorter, for the sake of more updates.

    `2 min(limit, 512)`, halved (not below 128) while the run would have fewer than 50 updates.
    """
    for name in ("total_steps", "num_envs"):
        require_positive_int(name, merged[name])
    total_steps, num_envs = int(merged["total_steps"]), int(merged["num_envs"])
    length = 2 * min(limit or 512, 512)
    while length // 2 >= 128 and total_steps <= 49 * num_envs * length:
        length //= 2
    return length


def _algorithm(algorithm: Any, settings: Mapping[str, Any]) -> Any:
    """The algorithm, with a clipped value loss where `clip_value` is True, without where False."""
    clip_value = settings.get("clip_value")
    if clip_value is None or not isinstance(algorithm, Algorithm):
        return algorithm
    require_bool("clip_value", clip_value)
    if algorithm.value_loss not in (squared_error, clipped_squared_error):
        if not clip_value:
            return algorithm
        raise ValueError(
            f"clip_value = True clips a squared error, but {algorithm.name} has another value "
            f"loss or none; leave it out."
        )
    loss = clipped_squared_error if clip_value else squared_error
    return algorithm._replace(value_loss=loss)


def _networks(
    policy: Any, baseline: Any, settings: Mapping[str, Any], has_baseline: bool
) -> tuple[Any, Any]:
    """Both networks, with `hidden` and the like where they are not the user's own."""
    changes = {name: settings[name] for name in ("std_from_obs", "squash") if name in settings}
    for name, flag in changes.items():
        require_bool(name, flag)
    widths = {"hidden": _widths(settings["hidden"])} if "hidden" in settings else {}
    if has_baseline and baseline is None:
        baseline = DefaultBaseline(hidden=getattr(policy, "hidden", (64, 64)))
    has_default_policy = isinstance(policy, DefaultPolicy) and "policy" not in settings
    has_default_baseline = isinstance(baseline, DefaultBaseline) and "baseline" not in settings
    in_use = has_default_policy or (has_baseline and has_default_baseline)
    refused = [*widths] * (not in_use) + [*changes] * (not has_default_policy)
    if refused:
        raise ValueError(f"{refused[0]} has no effect where the networks are given; leave it out.")
    if has_default_policy:
        policy = dataclasses.replace(policy, **widths, **changes)
    if has_default_baseline:
        baseline = dataclasses.replace(baseline, **widths)
    return policy, baseline if has_baseline else None


def _optimizers(
    merged: Mapping[str, Any], settings: Mapping[str, Any], has_baseline: bool
) -> tuple[Any, Any]:
    """The optimisers of both networks; `optimizer` is that of each without one of its own."""
    names = ["policy_optimizer", "baseline_optimizer"][: 1 + has_baseline]
    if "optimizer" in settings and all(name in settings for name in names):
        raise ValueError(
            f"optimizer = {short_repr(settings['optimizer'])} has no effect beside "
            f"{' and '.join(names)}; leave it out."
        )
    made = [settings.get(name, settings.get("optimizer", merged[name])) for name in names]
    return made[0], made[1] if has_baseline else None


def _widths(hidden: Any) -> tuple[int, ...]:
    if not isinstance(hidden, list | tuple):
        raise ValueError(f"hidden = {short_repr(hidden)} must be widths, such as (64, 64).")
    for size in hidden:
        require_int32("hidden", size)
    return tuple(int(size) for size in hidden)


def _own(own: Any) -> dict[str, Any]:
    """The hyperparameters of an own loss or estimate, by name."""
    if not isinstance(own, Mapping):
        raise ValueError(
            f"own = {short_repr(own)} must be numbers by name, such as {{'kl_coef': 0.1}}."
        )
    for name in own:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"own: {name!r} is no name; use one such as 'kl_coef'.")
    return {name: _scalar(f"own.{name}", value) for name, value in sorted(own.items())}


def as_int(value: Any) -> Any:
    """An int of NumPy as Python's, which never overflows; anything else as it is."""
    return int(value) if isinstance(value, np.integer) else value


def _float(value: Any) -> Any:
    return to_array(value, default_float())


def _scalar(name: str, value: Any) -> Any:
    dtype = getattr(value, "dtype", type(value))
    if np.ndim(value) != 0 or not np.issubdtype(dtype, np.number):
        raise ValueError(
            f"{name} = {short_repr(value)} must be a number; several values go to purerl.sweep."
        )
    return _float(value)


def to_array(value: Any, dtype: Any = None) -> Any:
    """A setting that is traced, as NumPy, with 64 bits cut to 32 as jax would; a tracer as it is.

    So a config can be made within a user's `jit`.
    """
    if isinstance(value, Tracer):
        return value if dtype is None else value.astype(dtype)
    array = np.asarray(value)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype) if dtype is None else dtype)
