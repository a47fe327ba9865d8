"""The settings of a training run: what is traced, what is static, and the checks of both."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from purerl.algorithms import Algorithm
from purerl.envs import EnvSpec, check_env
from purerl.types import Env, Hyperparams


class Config(eqx.Module):
    """Everything that `train` needs besides a key; made by a factory such as `purerl.vpg`.

    `hyper` and `env_params` are traced: `vmap` maps over them, and other values never recompile.
    The rest is static and hashable: another value is another program.

    **Raises:** `ValueError`, in one line, for a field that cannot be.
    """

    hyper: Hyperparams
    env_params: PyTree
    env: Env = eqx.field(static=True)
    algorithm: Algorithm = eqx.field(static=True)
    policy: Callable[..., eqx.Module] = eqx.field(static=True)
    baseline: Callable[..., eqx.Module] | None = eqx.field(static=True)
    optimizer: Callable[..., Any] = eqx.field(static=True)
    num_envs: int = eqx.field(static=True)
    rollout_length: int = eqx.field(static=True)
    num_updates: int = eqx.field(static=True)
    baseline_epochs: int = eqx.field(static=True)
    normalize_advantage: bool = eqx.field(static=True)
    log_every: int = eqx.field(static=True)

    def __check_init__(self):
        _check_sizes(self)
        check_hyper(self.hyper)
        _check_static(self)
        _check_optimizer(self)
        _check_networks(self, self.env_spec)

    @property
    def env_steps_per_update(self) -> int:
        return self.num_envs * self.rollout_length

    @property
    def env_steps(self) -> int:
        """The environment steps that will really be trained: whole updates of whole rollouts."""
        return self.num_updates * self.env_steps_per_update

    @property
    def num_records(self) -> int:
        """How many records of metrics the run leaves: one every `log_every` updates."""
        return self.num_updates // self.log_every

    @property
    def env_spec(self) -> EnvSpec:
        """The environment's spaces and time limit, read by shape evaluation alone."""
        return check_env(self.env, self.env_params)


def divisors(number: int) -> list[int]:
    """The divisors of a number, in ascending order."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def require_divisor(name: str, value: int, of: str, number: int) -> None:
    """Refuse a size that does not divide another, and name the nearest that do."""
    if number % value == 0:
        return
    near = sorted(sorted(divisors(number), key=lambda d: abs(d - value))[:5])
    raise ValueError(
        f"{of} = {number} is not divisible by {name} = {value}; "
        f"use {', '.join(map(str, near[:-1]))} or {near[-1]}."
        if len(near) > 1
        else f"{of} = {number} is not divisible by {name} = {value}; use {near[0]}."
    )


def one_line(value: Any) -> str:
    """The repr of a value for an error message: one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def require_positive_int(name: str, value: Any) -> None:
    """Refuse a count that is not an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} = {one_line(value)} must be a whole number of at least 1.")


def check_hyper(hyper: Hyperparams) -> None:
    """Refuse hyperparameters outside their ranges, alone or in a sweep; traced ones pass."""
    ranges = {
        "policy_learning_rate": (lambda x: (x > 0) & np.isfinite(x), "positive and finite"),
        "baseline_learning_rate": (lambda x: (x > 0) & np.isfinite(x), "positive and finite"),
        "discount": (lambda x: (x >= 0) & (x <= 1), "between 0 and 1"),
        "gae_lambda": (lambda x: (x >= 0) & (x <= 1), "between 0 and 1"),
        "clip_eps": (lambda x: x > 0, "positive (inf: no clipping)"),
        "entropy_coef": (lambda x: (x >= 0) & np.isfinite(x), "at least 0 and finite"),
        "max_grad_norm": (lambda x: x > 0, "positive (inf: no clipping)"),
    }
    for name, (holds, wanted) in ranges.items():
        value = getattr(hyper, name)
        if not isinstance(value, np.ndarray | np.generic | float | int):
            continue
        bad = [float(x) for x in np.ravel(value) if not holds(x)]
        if bad:
            raise ValueError(f"{name} = {bad[0]:g} must be {wanted}.")


def _check_sizes(config: Config) -> None:
    for name in ("num_envs", "rollout_length", "num_updates", "baseline_epochs", "log_every"):
        require_positive_int(name, getattr(config, name))
    if not isinstance(config.normalize_advantage, bool):
        given = one_line(config.normalize_advantage)
        raise ValueError(f"normalize_advantage = {given} must be True or False.")
    if not isinstance(config.algorithm, Algorithm):
        raise ValueError(
            f"algorithm = {one_line(config.algorithm)} must be an Algorithm; use purerl.VPG, "
            f"purerl.REINFORCE, or one made of them with _replace."
        )
    require_divisor("log_every", config.log_every, "num_updates", config.num_updates)


def _check_static(config: Config) -> None:
    for field in dataclasses.fields(config):
        if field.metadata.get("static", False):
            try:
                hash(getattr(config, field.name))
            except TypeError:
                raise ValueError(
                    f"{field.name} = {one_line(getattr(config, field.name))} is not hashable; "
                    f"use a function or a frozen dataclass."
                ) from None


def _check_optimizer(config: Config) -> None:
    try:
        optimizer = config.optimizer(1e-3, 1.0)
        jax.eval_shape(optimizer.init, jax.ShapeDtypeStruct((2,), np.float32))
    except Exception as error:
        raise ValueError(
            f"optimizer = {one_line(config.optimizer)} does not fit: it must be a function "
            f"(learning_rate, max_grad_norm) -> optax.GradientTransformation."
        ) from error


def _check_networks(config: Config, spec: EnvSpec) -> None:
    """Build both networks by shape alone and call them on one observation."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    obs = jax.ShapeDtypeStruct(spec.obs_space.shape, np.float32)

    def build_and_call(what, factory, use):
        def build(key, obs):
            module = factory(key, spec.obs_space, spec.action_space)
            if not callable(module):
                raise ValueError(f"it made a {type(module).__name__}; make a callable module.")
            return use(module(obs))

        try:
            return jax.eval_shape(build, key, obs)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            own = reason.startswith(f"the default {what}")
            raise ValueError(reason if own else f"{what}= does not fit: {reason}") from error

    def use_distribution(distribution):
        missing = [
            method
            for method in ("sample", "log_prob", "entropy", "mode")
            if not callable(getattr(distribution, method, None))
        ]
        if missing:
            raise ValueError(
                f"called on one observation it gave a {type(distribution).__name__} without "
                f"{', '.join(missing)}; give a distribution, such as purerl.Categorical(logits)."
            )
        action = distribution.sample(jax.random.key(0))
        return action, distribution.log_prob(action), distribution.entropy()

    action, log_prob, entropy = build_and_call("policy", config.policy, use_distribution)
    if action.shape != spec.action_space.shape:
        raise ValueError(
            f"policy= does not fit: its action has shape {action.shape}, but the environment "
            f"takes {spec.action_space.shape}."
        )
    for name, value in (("log_prob", log_prob), ("entropy", entropy)):
        if value.shape != ():
            raise ValueError(
                f"policy= does not fit: {name} has shape {value.shape}; give one number."
            )
    if config.algorithm.has_baseline:
        value = build_and_call("baseline", config.baseline, lambda value: value)
        if getattr(value, "shape", None) != ():
            raise ValueError(
                f"baseline= does not fit: called on one observation it gave "
                f"{getattr(value, 'shape', type(value).__name__)}; give one number, shape ()."
            )
