"""Values of successors: computed anew only where an episode was cut."""

import jax.numpy as jnp
import numpy as np
import pytest

from purerl.compute.rows import CHOSEN_BLOCK, _map_chosen


@pytest.mark.parametrize("count", [0, 1, CHOSEN_BLOCK, CHOSEN_BLOCK + 1, 300])
def test_rows_that_are_cut_get_their_own_value_and_no_other_does(count):
    rng = np.random.default_rng(count)
    cut = np.zeros(300, bool)
    cut[rng.permutation(300)[:count]] = True
    next_obs = rng.normal(size=(300, 3)).astype(np.float32)
    value = rng.normal(size=300).astype(np.float32)
    found = _map_chosen(lambda obs: obs.sum(), *map(jnp.asarray, (cut, next_obs, value)))
    np.testing.assert_allclose(found, np.where(cut, next_obs.sum(1), value), rtol=1e-5, atol=1e-6)
