"""What a header names: saved runs are read again by these names alone."""

import re

import purerl
from purerl.experiment.play.policies import POLICY_FORMAT
from purerl.experiment.store.fingerprint import describe
from purerl.experiment.store.identity import FORMAT

# Another name for any of these makes saved runs unreadable: then FORMAT and POLICY_FORMAT move.
NAMES = {
    "purerl.algorithms:Algorithm",
    "purerl.algorithms:baseline_estimate",
    "purerl.algorithms:gae_estimate",
    "purerl.algorithms:monte_carlo_estimate",
    "purerl.config.config:Config",
    "purerl.config.optimizers:clipped_adam",
    "purerl.losses:clipped_surrogate",
    "purerl.losses:score_function_loss",
    "purerl.losses:squared_error",
    "purerl.networks.defaults:DefaultBaseline",
    "purerl.networks.defaults:DefaultPolicy",
    "purerl.types:Hyperparams",
}


def names_in(described):
    if isinstance(described, dict):
        return set().union(*map(names_in, described.values()))
    if isinstance(described, list):
        return set().union(*map(names_in, described))
    is_name = isinstance(described, str) and re.fullmatch(r"[\w.]+:\w+", described)
    return {described} if is_name else set()


def test_the_names_that_headers_hold_are_those_of_this_format():
    assert (FORMAT, POLICY_FORMAT) == (6, 3)
    found = set()
    for algo in ("reinforce", "vpg", "a2c", "ppo"):
        found |= names_in(describe(purerl.preset("CartPole-v1", algo)))
    assert {name for name in found if name.startswith("purerl.")} == NAMES
