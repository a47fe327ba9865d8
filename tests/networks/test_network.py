"""Networks that compute in half precision: what leaves them is float32, and so are parameters."""

import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import purerl
from purerl.networks.network import TrainedPolicy
from purerl.rollout import collect
from purerl.training import attempt_step
from purerl.update import baseline_objective, make_batch, policy_objective, rollout_values

pytestmark = pytest.mark.usefixtures("without_type_checks")

SIZES: Any = {"num_envs": 2, "rollout_length": 8, "total_steps": 32}
HALVES = ("bfloat16", "float16")
train, init = jax.jit(purerl.train), jax.jit(purerl.init)


class Halving(eqx.Module):
    """A layer that computes in another dtype than that of its weights, and a head on it."""

    weight: jax.Array
    dtype: str = eqx.field(static=True)
    head: Any = eqx.field(static=True)

    def __call__(self, obs):
        return self.head(obs.astype(self.dtype) @ self.weight.astype(self.dtype))


def halving(dtype, head, size, weights=None) -> Any:
    def build(key, obs_space, action_space):
        weight = jax.random.normal(key, (obs_space.shape[0], size))
        return Halving(weight if weights is None else weight.astype(weights), dtype, head)

    return build


def gaussian(out):
    return purerl.DiagonalGaussian(out[:1], jnp.exp(out[1:]))


def squashing(out):
    return purerl.SquashedGaussian(out[:1], jnp.exp(out[1:]))


def first(out):
    return out[0]


def half_config(dtype, head=purerl.Categorical, **settings):
    env = "CartPole-v1" if head is purerl.Categorical else "Pendulum-v1"
    networks = {"policy": halving(dtype, head, 2), "baseline": halving(dtype, first, 1)}
    return purerl.ppo(env, **SIZES | networks | settings)


def of_an_update(config):
    """All that an update makes of the outputs of its networks, by name."""
    state = purerl.init(jax.random.key(0), config)
    policy, baseline = state.learner.policy, state.learner.baseline
    _, rollout, _ = collect(jax.random.key(1), policy, state.envs, config)
    value, next_value = rollout_values(baseline, rollout)
    estimate = config.estimate(rollout, value, next_value, config.hyper)
    batch = make_batch(rollout, value, estimate)
    return {
        "outputs": jax.vmap(policy)(batch.obs),
        "action": rollout.action if jnp.issubdtype(rollout.action.dtype, jnp.floating) else value,
        "values": (value, next_value),
        "batch": dict(vars(batch), action=value, obs=value),
        "policy": policy_objective(policy, batch, config),
        "baseline": baseline_objective(baseline, batch, config),
    }


@pytest.mark.parametrize("head", [purerl.Categorical, gaussian, squashing])
@pytest.mark.parametrize("dtype", HALVES)
def test_what_is_made_of_the_outputs_of_a_half_network_is_float32(dtype, head):
    made = jax.eval_shape(lambda: of_an_update(half_config(dtype, head)))
    dtypes = {name: {x.dtype.name for x in jax.tree.leaves(made[name])} for name in made}
    assert dtypes == {name: {"float32"} for name in made}


def test_half_networks_train_also_with_64_bits():
    for bits in (32, 64):
        with jax.enable_x64(bits == 64):
            state, metrics = train(jax.random.key(0), half_config("bfloat16"))
            assert int(state.failed_at) == -1
            assert metrics.policy_loss.dtype == metrics.approx_kl.dtype == f"float{bits}"
            assert np.isfinite(metrics.approx_kl).all()


def test_log_probabilities_of_a_half_network_are_those_of_its_logits():
    state = init(jax.random.key(0), half_config("bfloat16"))
    policy, obs = state.learner.policy, jnp.array([0.3, -1.2, 0.7, 2.0])
    logits = np.asarray(policy.module(obs).logits)
    assert logits.dtype == jnp.bfloat16
    expected = special.log_softmax(logits.astype(float))
    for called in (policy, TrainedPolicy(policy, purerl.Discrete(2))):
        found = jax.vmap(called(obs).log_prob)(jnp.arange(2))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_network_in_full_precision_is_the_program_of_its_module(bits):
    with jax.enable_x64(bits == 64):
        config = purerl.ppo("Pendulum-v1", squash=True, std_from_obs=True, **SIZES)
        learner = init(jax.random.key(0), config).learner
        obs = jnp.ones(3)
        for network in (learner.policy, learner.baseline):
            programs = [jax.make_jaxpr(call)(obs) for call in (network, network.module)]
            assert str(programs[0]) == str(programs[1])
            assert {x.dtype.name for x in jax.tree.leaves(network(obs))} == {f"float{bits}"}


def test_what_is_no_array_of_floats_passes_through_as_it_is():
    class Odd(eqx.Module):
        def __call__(self, obs):
            return {"count": jnp.int32(3), "key": jax.random.key(0), "name": "x", "none": None}

    out = purerl.as_network(Odd())(jnp.ones(1))
    assert (out["count"].dtype, out["name"], out["none"]) == (jnp.int32, "x", None)
    assert jnp.issubdtype(out["key"].dtype, jax.dtypes.prng_key)


# Parameters in half precision are refused


class Own(eqx.Module):
    layers: list[Halving]


def half_module(dtype):
    fine = Halving(jnp.ones((4, 2)), dtype, purerl.Categorical)
    return Own([fine, eqx.tree_at(lambda m: m.weight, fine, fine.weight.astype(dtype))])


def half_parameters(name, dtype):
    heads: Any = {"policy": (purerl.Categorical, 2), "baseline": (first, 1)}
    return half_config(dtype, **{name: halving(dtype, *heads[name], weights=dtype)})


def step_with(name, dtype):
    """A step of a state of which a network was changed without `as_network`."""
    config = half_config("float32")

    def step(key):
        state = purerl.init(key, config)
        network = jax.tree.map(lambda x: x.astype(dtype), getattr(state.learner, name))
        state = eqx.tree_at(lambda s: getattr(s.learner, name), state, network)
        return attempt_step(state, config)

    jax.eval_shape(step, jax.random.key(0))


REFUSED = {
    "of a policy": (
        lambda dtype: half_parameters("policy", dtype),
        r"^policy= does not fit: Halving's parameter weight is {dtype}; ",
    ),
    "of a baseline": (
        lambda dtype: half_parameters("baseline", dtype),
        r"^baseline= does not fit: Halving's parameter weight is {dtype}; ",
    ),
    "of a module": (
        lambda dtype: purerl.as_network(half_module(dtype)),
        r"^Own's parameter layers\[1\]\.weight is {dtype}; keep parameters float32, and compute in "
        r"{dtype} inside the network: layers\[1\]\.weight\.astype\(jnp\.{dtype}\)\.$",
    ),
    "of a policy in a state": (
        lambda dtype: step_with("policy", dtype),
        r"^the state's policy's parameter weight is {dtype}; ",
    ),
    "of a baseline in a state": (
        lambda dtype: step_with("baseline", dtype),
        r"^the state's baseline's parameter weight is {dtype}; ",
    ),
}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("build", "line"), REFUSED.values(), ids=list(REFUSED))
def test_half_parameters_are_refused(build, line, dtype):
    with pytest.raises(ValueError, match=line.format(dtype=dtype)) as error:
        build(dtype)
    assert "\n" not in str(error.value)


def test_half_constants_and_networks_in_float64_are_taken():
    constant = Halving(np.ones((4, 2), jnp.bfloat16), "bfloat16", purerl.Categorical)  # type: ignore
    assert purerl.as_network(constant)(jnp.ones(4)).logits.dtype == jnp.float32
    with jax.enable_x64(True):
        wide = Halving(jnp.ones((4, 2)), "float64", purerl.Categorical)
        assert purerl.as_network(wide)(jnp.ones(4)).logits.dtype == jnp.float64


@pytest.mark.parametrize("name", ["log_prob", "entropy"])
def test_a_distribution_that_computes_in_half_precision_is_refused(name):
    def rounding(out):
        one = purerl.Categorical(out)
        methods = {each: getattr(one, each) for each in ("sample", "log_prob", "entropy", "mode")}
        exact = methods[name]
        methods[name] = lambda *args: exact(*args).astype("float16")
        return types.SimpleNamespace(**methods)

    with pytest.raises(ValueError, match=rf"policy= .*{name} is float16; compute it in float32"):
        purerl.ppo("CartPole-v1", policy=halving("float32", rounding, 2), **SIZES)
