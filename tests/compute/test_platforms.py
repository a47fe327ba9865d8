"""One of two ways, by the platform: what the mesh says, or else what the compiler finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import purerl
from purerl.compute.mapping import map_seeds
from purerl.compute.platforms import by_platform


def mesh_of(platform, axes):
    """A mesh of devices that need not be here."""
    return jax.sharding.AbstractMesh(
        tuple(axes.values()),
        tuple(axes),
        axis_types=(AxisType.Auto,) * len(axes),
        abstract_device=jax.sharding.AbstractDevice(platform, None, platform),
    )


def not_here(x):
    raise AssertionError("traced for another platform")


@pytest.mark.parametrize(("platform", "sign"), [("cpu", 1), ("gpu", -1), ("tpu", -1)])
def test_within_a_mesh_only_what_its_platform_computes_is_traced(platform, sign):
    ways = {"cpu": jnp.positive, "default": jnp.negative}
    other = "default" if platform == "cpu" else "cpu"
    with jax.sharding.use_abstract_mesh(mesh_of(platform, {"seeds": 2})):
        assert by_platform(jnp.float32(2), **ways | {other: not_here}) == 2 * sign


def test_the_mesh_of_seeds_says_its_platform():
    def of_seed(x):
        return by_platform(x, cpu=jnp.negative, default=not_here)

    np.testing.assert_array_equal(map_seeds(of_seed, jnp.arange(4.0)), -np.arange(4.0))


def test_without_a_mesh_the_platform_is_that_which_the_program_is_lowered_for():
    traced = jax.jit(lambda x: by_platform(x, cpu=jnp.negative, default=jnp.positive)).trace(2.0)
    for platform, negates in (("cpu", True), ("cuda", False), ("tpu", False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.negate" in text) == negates


@pytest.mark.parametrize("axes", [{"seeds": 2}, {"seeds": 2, "envs": 2}])
@pytest.mark.parametrize(("platform", "lowered_for"), [("gpu", "cuda"), ("tpu", "tpu")])
@pytest.mark.parametrize("algo", [purerl.vpg, purerl.ppo])
def test_the_step_is_lowered_for_accelerators_too(algo, platform, lowered_for, axes):
    """Where no accelerator is, nothing else traces their way."""
    config = algo("CartPole-v1", num_envs=64, rollout_length=64, total_steps=4096)
    state = jax.eval_shape(purerl.init, jax.random.key(0), config)
    with jax.sharding.use_abstract_mesh(mesh_of(platform, axes)):
        traced = jax.jit(purerl.train_step).trace(state, config)
        text = traced.lower(lowering_platforms=(lowered_for,)).as_text()
    assert "platform_index" not in str(traced.jaxpr)
    after = jax.tree.structure(jax.eval_shape(purerl.train_step, state, config))
    assert jax.tree.structure(traced.out_info) == after
    assert "stablehlo.while" in text
