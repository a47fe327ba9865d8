"""The settings by name: what each is, its default, and where a config has it from.

Importing this imports nothing that takes long, as the command line's help is made of it.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, TypeVar, get_args, get_type_hints


class Settings(TypedDict, total=False):
    """The settings that a factory takes besides the environment; all have a default."""

    total_steps: Annotated[int, "Environment steps of one seed, rounded up to whole updates."]
    num_envs: Annotated[int, "Environments in one agent's rollout."]
    rollout_length: Annotated[
        int | None,
        "Steps of each environment in one rollout. Without a baseline it is by default twice the "
        "time limit L, 2 min(L, 512), halved (not below 128) while there would be fewer than 50 "
        "updates.",
    ]
    hidden: Annotated[tuple[int, ...], "Widths of the hidden layers of both default networks."]
    policy_learning_rate: Annotated[float, "Learning rate of the policy's optimiser."]
    baseline_learning_rate: Annotated[float, "Learning rate of the baseline's optimiser."]
    discount: Annotated[float, "Discount γ."]
    gae_lambda: Annotated[float, "λ of the generalised advantages."]
    clip_eps: Annotated[float, "How far PPO's probability ratio, or a clipped value, may move."]
    clip_value: Annotated[
        bool | None, "Whether the baseline's loss is clipped; by default as the algorithm has it."
    ]
    entropy_coef: Annotated[float, "Weight of the entropy bonus."]
    max_grad_norm: Annotated[float, "Global norm to which gradients are clipped."]
    target_kl: Annotated[float, "KL at which the policy's epochs on a rollout stop early."]
    epochs: Annotated[int, "Passes of the policy over each rollout."]
    baseline_epochs: Annotated[
        int | None, "Passes of the baseline over each rollout; of PPO by default as many as epochs."
    ]
    num_minibatches: Annotated[int, "Minibatches in a pass; must divide num_envs * rollout_length."]
    lookahead: Annotated[
        int | None,
        "Steps of the rollout that are needed behind a step to learn from it without a baseline; "
        "by default half of the rollout.",
    ]
    normalize_advantage: Annotated[bool, "Whether advantages are normalised within the minibatch."]
    normalize_obs: Annotated[
        bool, "Whether observations are normalised with their running statistics."
    ]
    normalize_reward: Annotated[
        bool, "Whether rewards are divided by the running spread of the return."
    ]
    schedule: Annotated[
        Mapping[str, str],
        "Hyperparameters that change over the run, by name, each with its shape: linear falls to "
        "0. One that is given replaces the default's or the preset's as a whole.",
    ]
    std_from_obs: Annotated[
        bool, "Whether a Gaussian policy's standard deviation depends on the observation."
    ]
    squash: Annotated[bool, "Whether tanh squeezes a Gaussian policy between the bounds."]
    log_every: Annotated[
        int, "Updates that one record of metrics covers; the last may cover fewer."
    ]
    policy: Annotated[
        Callable[..., Any], "Factory of the policy: (key, obs_space, action_space) -> eqx.Module."
    ]
    baseline: Annotated[
        Callable[..., Any], "Factory of the baseline: (key, obs_space, action_space) -> eqx.Module."
    ]
    optimizer: Annotated[
        Callable[..., Any],
        "Optimiser of both networks: (learning_rate, max_grad_norm) -> GradientTransformation.",
    ]
    policy_optimizer: Annotated[Callable[..., Any], "Optimiser of the policy, in the same form."]
    baseline_optimizer: Annotated[
        Callable[..., Any], "Optimiser of the baseline, in the same form."
    ]
    algorithm: Annotated[Any, "An `Algorithm`, such as `purerl.PPO._replace(policy_loss=…)`."]
    own: Annotated[
        Mapping[str, float], "Numbers that an own loss or estimate reads, as hyper.own[NAME]."
    ]
    env_params: Annotated[
        Any, "The environment's parameters, or some of their fields by name; by default its own."
    ]


HYPER_DEFAULTS: dict[str, float] = {
    "policy_learning_rate": 3e-3,
    "baseline_learning_rate": 5e-3,
    "discount": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "entropy_coef": 0.0,
    "max_grad_norm": 0.5,
    "target_kl": math.inf,
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

NETWORK_DEFAULTS: dict[str, Any] = {"hidden": (64, 64), "std_from_obs": False, "squash": False}

DEFAULTS: dict[str, Any] = {**STATIC_DEFAULTS, **HYPER_DEFAULTS, **NETWORK_DEFAULTS, "own": {}}

BOTH_RATES = {"policy_learning_rate": "linear", "baseline_learning_rate": "linear"}

# What an algorithm has otherwise. None: it follows from other settings, as `Settings` says.
ALGORITHM_DEFAULTS: dict[str, dict[str, Any]] = {
    "reinforce": {"rollout_length": None},
    "vpg": {"baseline_epochs": 10},
    "a2c": {"rollout_length": 32, "baseline_epochs": 4},
    "ppo": {
        "policy_learning_rate": 1e-3,
        "baseline_learning_rate": 1e-3,
        "epochs": 4,
        "baseline_epochs": None,
        "num_minibatches": 4,
        "schedule": BOTH_RATES,
    },
}


# What is an object of Python, or read by one: no words of a command, nor sent to a process.
OBJECT_SETTINGS = (
    *("policy", "baseline", "algorithm", "own"),
    *("optimizer", "policy_optimizer", "baseline_optimizer"),
)


class Setting(NamedTuple):
    """What is said of a setting wherever it is shown."""

    type: Any
    text: str


def all_settings() -> dict[str, Setting]:
    """Each setting's type and description, by name."""
    hints = get_type_hints(Settings, include_extras=True)
    return {name: Setting(*get_args(hint)) for name, hint in hints.items()}


def is_following(name: str, value: Any) -> bool:
    """Whether a setting is given as None: it is then what follows from others."""
    return value is None and name in ("rollout_length", "baseline_epochs")


def as_int(value: Any) -> Any:
    """An int of NumPy as Python's, which never overflows; anything else as it is."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    return int(value) if is_whole else value


def check_names(settings: Mapping[str, Any]) -> None:
    """Refuse names that are no settings, and name the nearest."""
    known = all_settings()
    for name in settings:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise ValueError(
                f"{name} is not a setting; did you mean {' or '.join(nearest)}?"
                if nearest
                else f"{name} is not a setting; use one of {', '.join(known)}."
            )


@dataclass(frozen=True, eq=False)
class Asked:
    """What a config was asked for, beside what was made of it.

    It equals any other: configs of the same program are equal.
    """

    total_steps: int
    given: frozenset[str] = frozenset()
    """The names of the settings that the user gave."""
    preset: frozenset[str] = frozenset()
    """The names of those that a preset gave."""
    follows: frozenset[str] = frozenset()
    """The names of those that follow from others."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asked)

    def __hash__(self) -> int:
        return hash(Asked)

    def with_given(self, settings: Mapping[str, Any]) -> "Asked":
        """The same, and settings that are given now; one that is None follows from others again."""
        total_steps = as_int(settings.get("total_steps", self.total_steps))
        names = frozenset(settings)
        given = frozenset(name for name in names if not is_following(name, settings[name]))
        return Asked(
            total_steps,
            (self.given - names) | given,
            self.preset - names,
            (self.follows - names) | (names - given),
        )

    def source(self, name: str) -> Literal["given", "preset", "default"]:
        """Where a setting comes from."""
        both = "optimizer" if name.endswith("_optimizer") else name
        if name in self.given or both in self.given:
            return "given"
        return "preset" if name in self.preset else "default"


# What stands for the defaults of a function that makes a preset.
OF_PRESET = "the preset's, or else the algorithm's"

Function = TypeVar("Function", bound=Callable[..., Any])


class Otherwise:
    """What stands in a signature for a default that is no value, such as `<as it is>`."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


# Defaults that are objects, or that other settings say.
SHOWN_DEFAULTS = {
    "policy": Otherwise("DefaultPolicy"),
    "baseline": Otherwise("DefaultBaseline"),
    **dict.fromkeys(
        ("optimizer", "policy_optimizer", "baseline_optimizer"), Otherwise("clipped_adam")
    ),
    "algorithm": Otherwise("the factory's"),
    "env_params": Otherwise("env.default_params"),
}


def default_of(name: str, algo: str) -> Any:
    """The default of a setting, of an algorithm; None where it follows from others."""
    return {**SHOWN_DEFAULTS, **DEFAULTS, **ALGORITHM_DEFAULTS[algo]}.get(name)


def shows_settings(
    algo: str | None = None, *, otherwise: str = "", without: Sequence[str] = ()
) -> Callable[[Function], Function]:
    """Show every setting of a function with `**settings` in its signature and its docstring.

    **Arguments:** the defaults shown are those of `algo`, or what `otherwise` says of all; those
    `without` are not taken.
    """

    def show(function: Any) -> Any:
        signature = inspect.signature(function)
        first = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {*without, *(parameter.name for parameter in first)}
        settings = {name: s for name, s in all_settings().items() if name not in taken}
        shown = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=setting.type,
                default=default_of(name, algo) if algo else Otherwise(otherwise),
            )
            for name, setting in settings.items()
        ]
        function.__signature__ = signature.replace(parameters=[*first, *shown])
        lines = [f"    - `{name}`: {setting.text}" for name, setting in settings.items()]
        text = inspect.cleandoc(function.__doc__ or "") + "\n\n**Settings:**\n\n"
        function.__doc__ = text + "\n".join(lines)
        return function

    return show
