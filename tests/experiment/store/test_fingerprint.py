"""Descriptions: equal for equal settings, different for different ones."""

import dataclasses
import dis
import functools
import importlib
import json
import linecache
import os
import subprocess
import sys
import types
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import ROOT
from probes import Probe

import purerl
from purerl.experiment.store.fingerprint import (
    describe,
    describe_state,
    parsed_source,
)
from purerl.experiment.store.header import diff


def scaled_loss(scale):
    def loss(value, old_value, value_target, hyper):
        return scale * (value - value_target) ** 2

    return loss


def one(x, y=1):
    return x + y


def another(x, y=1):
    return x - y


class A(NamedTuple):
    x: int


class B(NamedTuple):
    x: int


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


def recursive(n):
    def down(n):
        return n if n == 0 else down(n - 1)

    return down


def outer_constant(value):
    scope = {"SCALE": value, "helper": lambda x: x * value}
    exec("def f(x):\n    return helper(x) * SCALE", scope)
    return scope["f"]


def user_class(body):
    scope = {"__name__": "mine"}
    exec(f"class Mine:\n    gravity = 9.8\n    {body}", scope)
    return scope["Mine"]


def factory_of(body):
    scope = {"__name__": "mine", "Mine": user_class(body)}
    exec("def make():\n    return Mine()", scope)
    return scope["make"]


SUM, PRODUCT = "def f(self, x): return x + 1", "def f(self, x): return x * 1"

DIFFERENT = {
    "globals that a function names": (outer_constant(1), outer_constant(2)),
    "methods": (user_class(SUM), user_class(PRODUCT)),
    "class attributes": (user_class("gravity = 1.6"), user_class(SUM)),
    "properties": (
        user_class("f = property(lambda self: 1)"),
        user_class("f = property(lambda self: 2)"),
    ),
    "classes that a factory names": (factory_of(SUM), factory_of(PRODUCT)),
    "defaults by keyword": (lambda *, y=1: y, lambda *, y=2: y),
    "constants in code": (lambda x: x in {"a", "b"}, lambda x: x in {"a", "c"}),
    "random keys": (jax.random.key(0), jax.random.key(1)),
    "closures of one factory": (scaled_loss(1), scaled_loss(2)),
    "functions": (one, another),
    "lambdas": (lambda x: x + 1, lambda x: x + 2),
    "defaults": (lambda x, y=1: x + y, lambda x, y=2: x + y),
    "partials": (functools.partial(one, y=1), functools.partial(one, y=2)),
    "named tuples": (A(1), B(1)),
    "slots": (Slotted(1), Slotted(2)),
    "long arrays": (np.zeros(1000), np.ones(1000)),
    "networks": (purerl.DefaultPolicy(), purerl.DefaultPolicy(hidden=(8,))),
    "library functions": (jnp.tanh, jnp.sin),
    "fields": (Probe(length=3), Probe(length=4)),
}


@pytest.mark.parametrize(("a", "b"), DIFFERENT.values(), ids=list(DIFFERENT))
def test_what_differs_is_described_differently(a, b):
    assert describe(a) != describe(b)


def test_what_is_equal_is_described_equally():
    assert describe(scaled_loss(2)) == describe(scaled_loss(2))
    assert describe(purerl.DefaultPolicy()) == describe(purerl.DefaultPolicy(hidden=(64, 64)))
    assert describe(recursive(3)) == describe(recursive(3))
    assert describe(jnp.tanh).endswith(":tanh")


def in_another_python(function):
    """A function as another version of Python would compile it: with other bytecode."""
    code = function.__code__
    other = code.replace(co_code=code.co_code + bytes((dis.opmap["NOP"], 0)))
    return types.FunctionType(
        other, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )


def test_code_that_has_a_source_is_compared_by_that(tmp_path):
    for function in (one, scaled_loss(2), DIFFERENT["lambdas"][1], DIFFERENT["defaults"][0]):
        assert describe(in_another_python(function)) == describe(function)
    without = outer_constant(1)  # made by exec
    assert describe(in_another_python(without)) != describe(without)


def test_lambdas_of_one_line_are_told_apart_and_stand_anywhere():
    twice, squared, same = (lambda x: 2 * x), (lambda x: x * x), (lambda x: 2 * x)
    broken = {
        "over": lambda x: (
            2 * x  # a comment
        )
    }
    chosen, other = (lambda x: x if x else 1), (lambda x: x if x else 2)
    nested = lambda: lambda: 1  # noqa: E731
    assert parsed_source(chosen) != parsed_source(other)
    assert parsed_source(nested()) == parsed_source(lambda: 1) != parsed_source(nested)
    assert parsed_source(twice) != parsed_source(squared)
    assert parsed_source(twice) == parsed_source(same) == parsed_source(broken["over"])
    assert parsed_source(lambda: None) is not None


def test_a_description_is_json_without_addresses():
    values = [value for pair in DIFFERENT.values() for value in pair]
    text = json.dumps(describe([*values, recursive(3), {"a": {1, 2}}, json, eqx.nn.MLP]))
    assert "0x" not in text


def config_with(**settings):
    return purerl.vpg(Probe(), num_envs=2, rollout_length=4, total_steps=16, **settings)


def told(config):
    """What a run's header says of a config."""
    return json.dumps([describe(config), describe_state(config)])


def test_the_description_tells_losses_and_networks_apart():
    def with_loss(scale):
        return config_with(algorithm=purerl.VPG._replace(value_loss=scaled_loss(scale)))

    prints = [
        told(config)
        for config in (
            config_with(),
            config_with(discount=0.5),
            config_with(hidden=(8,)),
            with_loss(1),
            with_loss(2),
            config_with(optimizer=lambda rate, norm: optax.sgd(rate)),
        )
    ]
    assert len(set(prints)) == len(prints)
    assert told(with_loss(2)) == prints[4]


def test_the_description_sees_another_environment_of_the_same_name(tmp_path):
    source = (ROOT / "tests/support/probes.py").read_text()

    def printed(source, hash_seed="0"):
        (tmp_path / "mine.py").write_text(
            source + "\n\ndef a(x):\n    return x in {'a', 'b', 'c'}\n"
        )
        code = (
            "import purerl, mine;"
            "from purerl.experiment.store.fingerprint import describe, describe_state;"
            "config = purerl.vpg(mine.Probe(), num_envs=2);"
            "print(describe(config), describe_state(config), describe(mine.a))"
        )
        done = subprocess.run(
            [sys.executable, "-B", "-c", code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    first = printed(source)
    # Another process with other hashes, and a comment: the same description.
    assert printed("# a comment\n\n" + source, hash_seed="1") == first
    assert printed(source.replace("jnp.float32(1)", "jnp.float32(2)")) != first


def test_a_frozen_dataclass_is_described_by_its_fields():
    assert describe(Probe(length=3))["length"] == 3
    assert {f.name for f in dataclasses.fields(Probe)} < set(describe(Probe()))


DEFINITIONS = """
import dataclasses

import jax.numpy as jnp

LIMIT = 3


def helper(x):
    return jnp.minimum(x, LIMIT)


@dataclasses.dataclass(frozen=True)
class Mine:
    length: int = 2

    def step(self, x):
        return helper(x) + self.length
"""


def defined(source, filename, name):
    """What a source defines that stands in a file, as a module of this name."""
    scope: Any = {"__name__": name}
    exec(compile(source, filename, "exec"), scope)
    return scope


def test_a_definition_is_the_same_wherever_it_stands(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(f"# a script\nlength = step = 7  # attributes there\n{DEFINITIONS}")
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine/envs.py").write_text(DEFINITIONS)
    monkeypatch.syspath_prepend(tmp_path)
    module: Any = vars(importlib.import_module("package_of_mine.envs"))
    lines = DEFINITIONS.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, "<cell 3>", (len(DEFINITIONS), None, lines, "<cell 3>"))
    in_script = defined(script.read_text(), str(script), "__main__")
    in_cell = defined(DEFINITIONS, "<cell 3>", "__main__")
    for value in ("Mine", "helper"):
        assert describe(module[value]) == describe(in_script[value]) == describe(in_cell[value])
        assert "source" not in describe(module[value])
    assert describe(module["Mine"]()) == describe(in_script["Mine"]())
    for change in (("LIMIT = 3", "LIMIT = 4"), ("self.length", "2 * self.length")):
        script.write_text(DEFINITIONS.replace(*change))
        linecache.checkcache(str(script))
        other = defined(script.read_text(), str(script), "__main__")
        assert describe(other["Mine"]) != describe(module["Mine"])
        assert diff(describe(module["Mine"]()), describe(other["Mine"]()))


def test_without_a_source_the_name_decides_and_a_line_says_so(tmp_path, monkeypatch):
    (tmp_path / "module_of_mine.py").write_text(DEFINITIONS)
    monkeypatch.syspath_prepend(tmp_path)
    module: Any = vars(importlib.import_module("module_of_mine"))
    typed = defined(DEFINITIONS, "<typed>", "__main__")
    assert describe(typed["Mine"])["source"] == "none"
    for one, two in ((module, typed), (typed, module)):
        with pytest.warns(UserWarning, match=r"the source of env\.type is not there to compare"):
            assert diff({"env": describe(one["Mine"]())}, {"env": describe(two["Mine"]())}) == []
    renamed = defined(DEFINITIONS.replace("Mine", "Yours"), "<typed>", "__main__")
    assert diff(describe(module["Mine"]()), describe(renamed["Yours"]()))
    # Two that were both typed are compared by what Python has made of them.
    other = defined(DEFINITIONS.replace("LIMIT = 3", "LIMIT = 4"), "<typed>", "__main__")
    assert diff(describe(typed["Mine"]()), describe(other["Mine"]()))


def test_definitions_of_one_name_are_told_apart():
    def pair(first, second):
        return [first, second, first, second]

    mine, other = user_class(SUM), user_class(PRODUCT)
    assert describe([mine, other, mine]) != describe([mine, other, other])
    assert describe(pair(mine, other)) == describe(pair(user_class(SUM), user_class(PRODUCT)))
