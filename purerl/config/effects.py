"""Which settings have an effect on a config; those without are refused."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from purerl.algorithms import Algorithm, baseline_estimate, monte_carlo_estimate
from purerl.checks import short_repr
from purerl.compute.jaxprs import depends_on_input
from purerl.config.components import Shape, estimate_two_steps, parameter_shapes
from purerl.config.optimizers import clipped_adam
from purerl.envs import Box, EnvSpec
from purerl.types import Hyperparams, default_float


def reads(config: Any, name: str, methods: tuple[str, ...]) -> bool:
    """Whether a learning rate, or `max_grad_norm`, reaches what a method of an optimiser gives."""
    pairs = [
        (config.policy_optimizer, config.policy, "policy_learning_rate"),
        (config.baseline_optimizer, config.baseline, "baseline_learning_rate"),
    ]

    def call(optimizer, network, value):
        params = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            parameter_shapes(network, config.env_spec),
        )
        made = optimizer(1e-3, value) if name == "max_grad_norm" else optimizer(value, 1.0)
        made, default = map(optax.with_extra_args_support, (made, optimizer(1e-3, 1.0)))
        state = default.init(params)
        results = {
            "init": made.init(params),
            "update": made.update(params, state, params, value=jnp.zeros(())),
        }
        return [results[method] for method in methods]

    number = Shape((), default_float())
    return any(
        optimizer is clipped_adam
        or depends_on_input(functools.partial(call, optimizer, network), number)
        for optimizer, network, rate in pairs
        if optimizer is not None and name in (rate, "max_grad_norm")
    )


def algorithm_reads(algorithm: Algorithm, spec: EnvSpec, hyper: Hyperparams, name: str) -> bool:
    """Whether a hyperparameter reaches what one of an algorithm's functions gives."""

    def call_all(value):
        # One number of each, as `hyper` may hold the values of a sweep.
        numbers = jax.tree.map(lambda _: jnp.full((), 0.5), hyper)
        changed = numbers.with_value(name, value)
        dtype = default_float() if isinstance(spec.action_space, Box) else np.int32
        action = Shape(spec.action_space.shape, dtype)
        estimate = estimate_two_steps(algorithm, spec, action, changed)
        losses = [loss for loss in (algorithm.policy_loss, algorithm.value_loss) if loss]
        return estimate, [loss(*[jnp.zeros(4)] * 3, changed) for loss in losses]

    return depends_on_input(call_all, Shape((), default_float()))


def why_unused(config: Any, name: str) -> str | None:
    """Why a config never reads a setting; None where it does."""
    algorithm = config.algorithm
    of_baseline = ("baseline", "baseline_epochs", "baseline_learning_rate", "baseline_optimizer")
    if name in of_baseline and not algorithm.has_baseline:
        return f"{algorithm.name} has no baseline"
    if name == "lookahead" and algorithm.estimate is not monte_carlo_estimate:
        return f"{algorithm.name} drops no step of a rollout"
    if name == "target_kl" and config.epochs == 1 and config.num_minibatches == 1:
        return f"{algorithm.name} takes one step of the policy a rollout"
    if name == "gae_lambda" and algorithm.estimate in (monte_carlo_estimate, baseline_estimate):
        return f"{algorithm.name} uses the reward-to-go"
    if (name in ("gae_lambda", "clip_eps") or name.startswith("own.")) and not algorithm_reads(
        algorithm, config.env_spec, config.hyper, name
    ):
        return f"{algorithm.name} {'clips no loss' if name == 'clip_eps' else 'never reads it'}"
    of_optimizer = ("policy_learning_rate", "baseline_learning_rate", "max_grad_norm")
    if name in of_optimizer and not reads(config, name, ("init", "update")):
        if name == "max_grad_norm":
            return "no optimizer reads it"
        return f"the {name.removesuffix('_learning_rate')}'s optimizer never reads it"
    return None


def require_used(config: Any, settings: dict[str, Any]) -> None:
    """Refuse settings that the config never reads."""
    schedule = dict(settings.get("schedule", ()))
    own = {f"own.{name}": value for name, value in dict(settings.get("own", ())).items()}
    settings = {**settings, **own}
    for name in (*settings, *schedule):
        reason = why_unused(config, name)
        if reason is not None and name in settings:
            raise ValueError(
                f"{name} = {short_repr(settings[name])} has no effect: {reason}; leave it out."
            )
        if reason is not None:
            raise ValueError(f"schedule: {name!r} has no effect: {reason}; leave it out.")


def require_own(where: str, name: str, hyper: Hyperparams) -> None:
    """Refuse the name of an own hyperparameter that there is not."""
    key = name.removeprefix("own.")
    if key != name and key not in hyper.own:
        names = ", ".join(f"own.{name}" for name in hyper.own)
        use = f"use {names}" if names else "give it: own={...}"
        raise ValueError(f"{where} is none of the own hyperparameters; {use}.")
