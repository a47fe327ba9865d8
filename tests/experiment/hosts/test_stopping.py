"""Computing in another thread, so that signals are heard meanwhile."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from purerl.experiment.hosts.stopping import THREAD_LOCAL_SETTINGS, call_interruptibly


def settings() -> dict[str, Any]:
    return {name: getattr(jax.config, f"jax_{name}") for name in THREAD_LOCAL_SETTINGS}


def test_the_other_thread_has_the_settings_of_jax_of_this_one():
    assert call_interruptibly(threading.current_thread) is not threading.main_thread()
    assert call_interruptibly(settings) == settings()
    with (
        jax.default_matmul_precision("highest"),
        jax.default_prng_impl("rbg"),
        jax.enable_x64(True),
        jax.threefry_partitionable(False),
        jax.numpy_dtype_promotion("strict"),
    ):
        here = settings()
        assert call_interruptibly(settings) == here
        assert call_interruptibly(jnp.zeros, 2).dtype == jnp.float64
        assert call_interruptibly(lambda: jax.random.key_impl(jax.random.key(0))) == "rbg"
    assert settings() != here


def test_an_error_comes_back_from_the_other_thread():
    with pytest.raises(ZeroDivisionError):
        call_interruptibly(lambda: 1 // 0)
