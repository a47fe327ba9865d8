"""Checks of what a user brings: hyperparameters, an optimiser, networks, an algorithm."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from purerl.algorithms import (
    Algorithm,
    baseline_estimate,
    gae_estimate,
)
from purerl.checks import first_line, short_repr
from purerl.config.optimizers import clipped_adam
from purerl.distributions import squashed
from purerl.envs import Box, Discrete, EnvSpec
from purerl.networks.calls import call_problem, lacks_argument
from purerl.networks.defaults import DefaultBaseline, DefaultPolicy
from purerl.networks.network import as_network, is_below_float32, parameters
from purerl.types import Estimate, Hyperparams, Transition, default_float

Shape = jax.ShapeDtypeStruct


def check_optimizer(
    name: str, optimizer: Callable[..., Any], network: Callable[..., Any], spec: EnvSpec
) -> None:
    """Refuse what makes no optimiser of a network from a learning rate and a gradient norm."""
    if optimizer is clipped_adam:
        return
    error = None
    try:
        made = optimizer(1e-3, 1.0)
        is_optimizer = callable(made.init) and callable(made.update)
    except Exception as raised:
        is_optimizer, error = False, raised
    if not is_optimizer:
        raise ValueError(
            f"{name} = {short_repr(optimizer)} does not fit: it must be a function "
            f"(learning_rate, max_grad_norm) -> optax.GradientTransformation."
        ) from error

    def step(params):
        made = optax.with_extra_args_support(optimizer(1e-3, 1.0))
        state = made.init(params)
        return state, made.update(params, state, params, value=jnp.zeros(()))

    params = parameter_shapes(network, spec)
    state, (updates, after) = _eval_shape(f"{name}= does not fit: ", step, params)
    for what, before, now in (("updates", params, updates), ("state", state, after)):
        if _shapes(before) != _shapes(now):
            raise ValueError(
                f"{name}= does not fit: its {what} after a step have other shapes or dtypes than "
                f"before."
            )


def parameter_shapes(network: Callable[..., Any], spec: EnvSpec) -> Any:
    """The parameters of a network, as shapes and dtypes."""

    def build(key):
        return parameters(as_network(network(key, spec.obs_space, spec.action_space)))

    return eqx.filter_eval_shape(build, jax.eval_shape(lambda: jax.random.key(0)))


def _shapes(tree: Any) -> Any:
    """The structure of a pytree, and the shape and dtype of each leaf."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [(leaf.shape, leaf.dtype) for leaf in leaves]


def check_policy(factory: Callable[..., Any], spec: EnvSpec) -> Shape:
    """Refuse a policy that gives no distribution over the environment's actions.

    **Returns:** shape and dtype of one of its actions, as it is sampled.
    """

    def call_methods(distribution):
        needed = ("sample", "log_prob", "entropy", "mode")
        missing = [name for name in needed if not callable(getattr(distribution, name, None))]
        if missing:
            raise ValueError(
                f"called on one observation it gave a {type(distribution).__name__} without "
                f"{', '.join(missing)}; give a distribution, such as purerl.Categorical(logits)."
            )
        logits, space = getattr(distribution, "logits", None), spec.action_space
        if logits is not None and isinstance(space, Discrete) and logits.shape != (space.n,):
            raise ValueError(
                f"it gave logits of shape {logits.shape} for {space.n} actions; give ({space.n},)."
            )
        action = distribution.sample(jax.random.key(0))
        sent = squashed(distribution, action)
        return action, sent, distribution.log_prob(action), distribution.entropy()

    action, sent, log_prob, entropy = _build_and_call("policy", factory, spec, call_methods)
    dtype = np.floating if isinstance(spec.action_space, Box) else np.integer
    if sent.shape != spec.action_space.shape or not np.issubdtype(sent.dtype, dtype):
        raise ValueError(
            f"policy= does not fit: its action is {sent.dtype}{list(sent.shape)}, but the "
            f"environment takes {dtype.__name__}{list(spec.action_space.shape)}."
        )
    for name, value in (("log_prob", log_prob), ("entropy", entropy)):
        if value.shape != ():
            raise ValueError(
                f"policy= does not fit: {name} has shape {value.shape}; give one number."
            )
        if is_below_float32(value):
            raise ValueError(
                f"policy= does not fit: {name} is {value.dtype}; compute it in float32."
            )
    return action


def check_baseline(factory: Callable[..., Any], spec: EnvSpec) -> None:
    """Refuse a baseline that does not give one number."""
    value = _build_and_call("baseline", factory, spec, lambda value: value)
    if getattr(value, "shape", None) != ():
        raise ValueError(
            f"baseline= does not fit: called on one observation it gave "
            f"{getattr(value, 'shape', type(value).__name__)}; give one number, shape ()."
        )


def _build_and_call(
    field: str, factory: Callable[..., Any], spec: EnvSpec, read: Callable[[Any], Any]
) -> Any:
    """Build a network by shape alone, call it on one observation, and read the result."""

    def build(key, obs):
        module: eqx.Module = factory(key, spec.obs_space, spec.action_space)
        if not callable(module):
            made = f"it made a {type(module).__name__}; make a callable module."
            raise ValueError(call_problem(module) or made)
        network = as_network(module)
        try:
            out = network(obs)
        except Exception as error:
            problem = call_problem(module) if lacks_argument(error) else None
            if problem is None:
                raise
            raise ValueError(problem) from error
        return read(out)

    is_default = isinstance(factory, DefaultPolicy | DefaultBaseline)
    key = jax.eval_shape(lambda: jax.random.key(0))
    obs = Shape(spec.obs_space.shape, default_float())
    return _eval_shape("" if is_default else f"{field}= does not fit: ", build, key, obs)


def estimate_two_steps(
    algorithm: Algorithm, spec: EnvSpec, action: Shape, hyper: Hyperparams
) -> Any:
    """The estimate of a rollout of two steps in two environments."""
    obs, number = jnp.zeros((2, 2, *spec.obs_space.shape)), jnp.zeros((2, 2))
    actions, flag = jnp.zeros((2, 2, *action.shape), action.dtype), jnp.zeros((2, 2), bool)
    rollout = Transition(obs, actions, number, number, flag, flag, obs, jnp.zeros((2, 2), int))
    value = number if algorithm.has_baseline else None
    return algorithm.estimate(rollout, value, value, hyper)


def check_algorithm(algorithm: Algorithm, spec: EnvSpec, action: Shape, hyper: Hyperparams) -> None:
    """Refuse an algorithm whose functions fail on a rollout of two steps in two environments."""
    if algorithm.estimate in (baseline_estimate, gae_estimate) and not algorithm.has_baseline:
        raise ValueError(
            "algorithm= does not fit: its estimate takes the values of a baseline, and value_loss "
            "is None; without one: _replace(estimate=purerl.REINFORCE.estimate, value_loss=None)."
        )
    estimate = _eval_shape(
        "algorithm= does not fit: estimate: ",
        lambda: estimate_two_steps(algorithm, spec, action, hyper),
    )
    shapes = [getattr(leaf, "shape", None) for leaf in jax.tree.leaves(estimate)]
    if not isinstance(estimate, Estimate) or shapes != [(2, 2)] * 3:
        raise ValueError(
            f"algorithm= does not fit: estimate gave {short_repr(estimate)}; give a "
            f"purerl.Estimate of three arrays [T, N]."
        )
    for name in ("policy_loss", "value_loss"):
        function = getattr(algorithm, name)
        if function is None:
            continue
        problem = f"algorithm= does not fit: {name}: "
        loss = _eval_shape(problem, lambda f=function: f(*[jnp.zeros(4)] * 3, hyper))
        if getattr(loss, "shape", None) != (4,):
            raise ValueError(
                f"algorithm= does not fit: {name} gave {short_repr(loss)} for 4 transitions; give "
                f"one number for each."
            )


def _eval_shape(problem: str, function: Callable[..., Any], *args: Any) -> Any:
    """The shapes of a result; an error is one line that begins with `problem`."""
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:
        raise ValueError(f"{problem}{first_line(error)}") from error


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
        "target_kl": (lambda x: x > 0, "positive (inf: no early stop)"),
    }
    ranges |= {f"own.{name}": (lambda x: ~np.isnan(x), "a number") for name in hyper.own}
    for name, (is_allowed, requirement) in ranges.items():
        value = hyper.value(name)
        if not isinstance(value, np.ndarray | np.generic | float | int):
            continue
        refused = [float(x) for x in np.ravel(value) if not is_allowed(x)]
        if refused:
            raise ValueError(f"{name} = {refused[0]:g} must be {requirement}.")
