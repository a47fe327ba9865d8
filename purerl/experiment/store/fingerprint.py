"""A setting as JSON, and the fingerprint that tells two configs apart."""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purerl.config.config import Config
from purerl.training import init

# Functions and classes of these are told by name: their versions stand in a run's header.
PACKAGES = ("purerl", "jax", "jaxlib", "equinox", "optax", "gymnax", "numpy")


def fingerprint(config: Config, setting: Config | None = None) -> str:
    """A hash of a config: its settings, the code a user brought, and the shapes of its state.

    Of a sweep's config, `setting` is one of the settings, whose state it is.
    """
    return digest([describe(config), shapes(config if setting is None else setting)])


def shapes(config: Config) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, dtype and shape of every array of a config's state."""
    state = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), config)
    return [
        (jax.tree_util.keystr(path), str(leaf.dtype), leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(state)
    ]


def describe(value: Any) -> Any:
    """A setting as JSON: numbers as they are, values by fields, functions by name and code.

    The code of a user's own function or class takes in what it refers to: closure, defaults, and
    the globals that it names, their code too. It is compared as it is written, but for comments and
    layout: bytecode is another in each Python, and stands for what has no source. Equal settings
    have equal descriptions, in another process too.
    """
    return _describe(value, (), set())


def _describe(value: Any, within: tuple[int, ...], told: set[str]) -> Any:
    """`within` are the objects around this one, `told` the functions and classes told already."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _describe_array(value)
    if id(value) in within:
        return "itself"
    inner = functools.partial(_describe, within=(*within, id(value)), told=told)
    if isinstance(value, dict):
        return {str(key): inner(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((inner(each) for each in value), key=repr)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {"type": _name(type(value)), **inner(value._asdict())}  # pyright: ignore
    if isinstance(value, list | tuple):
        return [inner(each) for each in value]
    if isinstance(value, functools.partial):
        return {"partial": inner(value.func), "args": inner([*value.args, value.keywords])}
    if isinstance(value, types.MethodType):
        return {"method": inner(value.__func__), "of": inner(value.__self__)}
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.CodeType):
        return _code(value, inner)
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        name = _name(value)
        is_told, is_known = f"{name} {id(value)}" in told, _is_known(value)
        told.add(f"{name} {id(value)}")
        if is_told or is_known:
            return name
        code = _class_code if isinstance(value, type) else _function_code
        return {"name": name, "code": digest(code(value, inner))}
    return {"type": inner(type(value)), **{name: inner(each) for name, each in _fields(value)}}


def _describe_array(value: Any) -> Any:
    is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    array = np.asarray(jax.random.key_data(value) if is_key else value)
    if array.size <= 64 and array.dtype != object:
        return jax.tree.map(_number, array.tolist())
    data = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return {"array": f"{array.dtype}{list(array.shape)}", "data": data}


def _number(value: Any) -> Any:
    """A number as JSON has them: infinities and NaN by name."""
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _class_code(value: type, inner: Callable[[Any], Any]) -> Any:
    """What a class and its own bases define, but for what Python and decorators generate."""
    own = [each for each in value.__mro__ if not _is_known(each)]
    return [
        {
            name: inner(_plain(member))
            for name, member in vars(each).items()
            if _is_written(name, member, each)
        }
        for each in own
    ]


def _is_written(name: str, member: Any, owner: type) -> bool:
    if isinstance(member, types.FunctionType | staticmethod | classmethod):
        # Not what a decorator has generated.
        return _plain(member).__module__ == owner.__module__
    if isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType):
        return False
    return not name.startswith("_")


def _plain(member: Any) -> Any:
    if isinstance(member, property):
        return [member.fget, member.fset]
    return getattr(member, "__func__", member)


def _function_code(value: Any, inner: Callable[[Any], Any]) -> Any:
    function = getattr(value, "__wrapped__", value)
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    source = find_source(function)  # lists and strings: described again, they would be the same
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    found = _names(code) & {*function.__globals__}
    named = {name: function.__globals__[name] for name in sorted(found)}
    around = (cells, function.__defaults__, function.__kwdefaults__, named)
    return [source or inner(code), *(inner(each) for each in around)]


def _names(code: types.CodeType) -> set[str]:
    inside = (_names(each) for each in code.co_consts if isinstance(each, types.CodeType))
    return {*code.co_names}.union(*inside)


def _code(code: types.CodeType, inner: Callable[[Any], Any]) -> Any:
    """The bytecode of a function without a source, for the Python that has compiled it alone."""
    constants = [
        repr(each) if isinstance(each, complex | types.EllipsisType) else inner(each)
        for each in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), constants]


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    else:
        slots = [slot for each in type(value).__mro__ for slot in getattr(each, "__slots__", ())]
        names = [*getattr(value, "__dict__", {}), *slots]
    return ((name, getattr(value, name)) for name in names if hasattr(value, name))


def _is_known(value: Any) -> bool:
    module = getattr(value, "__module__", None) or ""
    package = module.partition(".")[0]
    return package in PACKAGES or package in sys.stdlib_module_names


def _name(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def digest(value: Any) -> str:
    """A short hash of what JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def find_source(function: types.FunctionType) -> Any:
    """What a function says, as nested lists, without comments or layout; None without a source."""
    code = function.__code__
    try:
        lines, _ = inspect.findsource(function)
        nodes = _functions("".join(lines))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    found = [node for node in nodes if _is_of(node, code)]
    if len(found) > 1:  # lambdas of one line, which may lie within each other
        found = sorted((node for node in found if _spans(node.body, code)), key=_begin)[-1:]
    return _syntax_as_lists(found[0]) if found else None


@functools.lru_cache(maxsize=8)
def _functions(text: str) -> list[Any]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


def _is_of(node: Any, code: types.CodeType) -> bool:
    """Whether code of this name begins where a function does: with the first of its decorators."""
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    first = [*getattr(node, "decorator_list", ()), node][0]
    return (name, first.lineno) == (code.co_name, code.co_firstlineno)


def _spans(node: Any, code: types.CodeType) -> bool:
    """Whether any of the code was made of what lies in a node."""
    found = [place for place in code.co_positions() if None not in place]
    places = [((place[0], place[2]), (place[1], place[3])) for place in found]
    end = (node.end_lineno, node.end_col_offset)
    return any(_begin(node) <= each[0] < each[1] <= end for each in places)


def _begin(node: Any) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _syntax_as_lists(node: Any) -> Any:
    """A syntax tree as lists; fields that are empty are left out, as they differ with versions."""
    if isinstance(node, ast.JoinedStr):  # to which Python 3.12.1 adds empty strings
        parts = [each for each in node.values if getattr(each, "value", None) != ""]
        return [type(node).__name__, _syntax_as_lists(parts)]
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *([name, _syntax_as_lists(value)] for name, value in fields)]
    if isinstance(node, list):
        return [_syntax_as_lists(each) for each in node]
    return repr(node)
