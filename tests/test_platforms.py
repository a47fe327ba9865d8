"""One of two ways, by the platform: what the mesh says, or else what the compiler finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from purerl.mapped import map_seeds
from purerl.platforms import by_platform


def not_here(x):
    raise AssertionError("traced for another platform")


@pytest.mark.parametrize(("platform", "sign"), [("cpu", 1), ("gpu", -1), ("tpu", -1)])
def test_within_a_mesh_only_what_its_platform_computes_is_traced(platform, sign):
    ways = {"cpu": jnp.positive, "default": jnp.negative}
    other = "default" if platform == "cpu" else "cpu"
    device = jax.sharding.AbstractDevice(platform, None, platform)
    mesh = jax.sharding.AbstractMesh(
        (2,), ("seeds",), axis_types=(AxisType.Auto,), abstract_device=device
    )
    with jax.sharding.use_abstract_mesh(mesh):
        assert by_platform(jnp.float32(2), **ways | {other: not_here}) == 2 * sign


def test_the_mesh_of_seeds_says_its_platform():
    def of_seed(x):
        return by_platform(x, cpu=jnp.negative, default=not_here)

    np.testing.assert_array_equal(map_seeds(of_seed, jnp.arange(4.0)), -np.arange(4.0))


def test_without_a_mesh_the_platform_is_chosen_when_the_program_is_made():
    def either(x):
        return by_platform(x, cpu=jnp.negative, default=jnp.positive)

    assert jax.jit(either)(2.0) == -2
    assert "neg" in str(jax.make_jaxpr(either)(2.0))
    with pytest.raises(AssertionError, match="another platform"):
        jax.make_jaxpr(lambda x: by_platform(x, cpu=jnp.negative, default=not_here))(2.0)
