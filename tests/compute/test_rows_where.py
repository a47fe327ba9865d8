"""Rows that a mask chooses: computed alone on a CPU, with the same result as elsewhere."""

import jax.numpy as jnp
import numpy as np
import pytest

from purerl.compute import rows
from purerl.compute.rows import CHOSEN_BLOCK_ROWS, map_rows_where


@pytest.mark.parametrize("way", ["cpu", "default"])
@pytest.mark.parametrize("count", [0, 1, CHOSEN_BLOCK_ROWS, CHOSEN_BLOCK_ROWS + 1, 300])
def test_rows_that_are_chosen_get_their_own_value_and_no_other_does(count, way, monkeypatch):
    monkeypatch.setattr(rows, "by_platform", lambda *args, **ways: ways[way](*args))
    rng = np.random.default_rng(count)
    mask = np.zeros(300, bool)
    mask[rng.permutation(300)[:count]] = True
    obs = rng.normal(size=(300, 3)).astype(np.float32)
    other = rng.normal(size=300).astype(np.float32)
    chosen, values, others = map(jnp.asarray, (mask, obs, other))
    mapped = map_rows_where(lambda obs: obs.sum(), chosen, values, others)
    np.testing.assert_allclose(mapped, np.where(mask, obs.sum(1), other), rtol=1e-5, atol=1e-6)
