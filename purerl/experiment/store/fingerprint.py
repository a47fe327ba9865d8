"""A setting as JSON, by which two configs are told apart.

The user's own functions and classes are described by their name and parsed source, which are the
same in every file, module or notebook and in every version of Python.
"""

import ast
import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from purerl.checks import is_typed_key
from purerl.config.config import Config
from purerl.config.settings import Asked
from purerl.training import init

# Functions and classes of these are described by name: a run's header has their versions.
NAMED_PACKAGES = ("purerl", "jax", "jaxlib", "equinox", "optax", "gymnax", "numpy")
GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")  # what reads one by its name
NO_SOURCE = {"source": "none"}  # beside the name and the code of what was typed after `python -c`


def describe_state(config: Config) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, dtype and shape of every array of a config's state."""
    state = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), config)
    return [
        (jax.tree_util.keystr(path), str(leaf.dtype), leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(state)
    ]


def describe(value: Any) -> Any:
    """Describe a setting as JSON: values by their fields, functions by name and code.

    The code of a user's own function or class is its source without comments and layout, or its
    bytecode where it has none. Its closure, defaults and globals are described too, and not the
    module that it stands in. Equal settings have equal descriptions in every process.
    """
    return _describe(value, (), {})


def _describe(value: Any, enclosing: tuple[int, ...], seen: dict[int, str]) -> Any:
    """`enclosing` are the ids of the objects around this one; `seen`, those described so far."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _describe_array(value)
    if id(value) in enclosing:
        return "itself"
    inner = functools.partial(_describe, enclosing=(*enclosing, id(value)), seen=seen)
    if isinstance(value, dict):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((inner(item) for item in value), key=repr)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {"type": inner(type(value)), **inner(value._asdict())}  # pyright: ignore
    if isinstance(value, list | tuple):
        return [inner(item) for item in value]
    if isinstance(value, functools.partial):
        return {"partial": inner(value.func), "args": inner([*value.args, value.keywords])}
    if isinstance(value, types.MethodType):
        return {"method": inner(value.__func__), "of": inner(value.__self__)}
    if isinstance(value, types.ModuleType):
        return value.__name__ if _is_named(value.__name__) else value.__name__.rpartition(".")[2]
    if isinstance(value, types.CodeType):
        return _code(value, inner)
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        if _is_library_code(value):
            return f"{value.__module__}:{value.__qualname__}"
        if id(value) in seen:
            return seen[id(value)]
        name = value.__qualname__.rpartition(".")[2]
        seen[id(value)] = f"{name}#{len(seen)}"  # which of those that have this name
        code = (_class_code if isinstance(value, type) else _function_code)(value, inner)
        described = {"name": name, "code": short_hash(code)}
        return described if _has_source(code) else described | NO_SOURCE
    return {"type": inner(type(value)), **{name: inner(field) for name, field in _fields(value)}}


def _describe_array(value: Any) -> Any:
    array = np.asarray(jax.random.key_data(value) if is_typed_key(value) else value)
    if array.size <= 64 and array.dtype != object:
        return jax.tree.map(_number, array.tolist())
    data = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return {"array": f"{array.dtype}{list(array.shape)}", "data": data}


def _number(value: Any) -> Any:
    """A number for JSON: infinities and NaN by name."""
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _class_code(value: type, inner: Callable[[Any], Any]) -> Any:
    """What a class and the user's bases define, without what Python and decorators generate."""
    return [
        {
            name: inner(_underlying(member))
            for name, member in vars(owner).items()
            if _is_written(name, member, owner)
        }
        for owner in value.__mro__
        if not _is_library_code(owner)
    ]


def _is_written(name: str, member: Any, owner: type) -> bool:
    if isinstance(member, types.FunctionType | staticmethod | classmethod):
        function = _underlying(member)
        code = getattr(inspect.unwrap(function), "__code__", None)
        is_generated = code is not None and code.co_qualname.startswith("__create_fn__.")
        return function.__module__ == owner.__module__ and not is_generated  # by a dataclass
    if isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType):
        return False
    return not name.startswith("_")


def _underlying(member: Any) -> Any:
    if isinstance(member, property):
        return [member.fget, member.fset]
    return getattr(member, "__func__", member)


def _function_code(value: Any, inner: Callable[[Any], Any]) -> Any:
    function = getattr(value, "__wrapped__", value)
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    names = _global_names(code) & {*function.__globals__}
    used_globals = {name: function.__globals__[name] for name in sorted(names)}
    context = (cells, function.__defaults__, function.__kwdefaults__, used_globals)
    source = parsed_source(function)
    return [source or [NO_SOURCE, inner(code)], *(inner(part) for part in context)]


def _has_source(code: Any) -> bool:
    """Whether all of a described code was read from sources."""
    if isinstance(code, dict):
        return not NO_SOURCE.items() <= code.items() and all(map(_has_source, code.values()))
    return all(map(_has_source, code)) if isinstance(code, list) else True


def _global_names(code: types.CodeType) -> set[str]:
    """The names of the globals that a function reads, also inside of it; attributes are none."""
    own = {each.argval for each in dis.get_instructions(code) if each.opname in GLOBALS}
    nested = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return own.union(*map(_global_names, nested))


def _code(code: types.CodeType, inner: Callable[[Any], Any]) -> Any:
    """The bytecode of a function without a source; each version of Python has its own."""
    constants = [
        repr(const) if isinstance(const, complex | types.EllipsisType) else inner(const)
        for const in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), constants]


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a value, without what a config was asked for, which is no part of a program."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    else:
        slots = [slot for base in type(value).__mro__ for slot in getattr(base, "__slots__", ())]
        names = [*getattr(value, "__dict__", {}), *slots]
    fields = ((name, getattr(value, name)) for name in names if hasattr(value, name))
    return ((name, field) for name, field in fields if not isinstance(field, Asked))


def _is_library_code(value: Any) -> bool:
    return _is_named(getattr(value, "__module__", None) or "")


def _is_named(module: str) -> bool:
    """Whether a module is described by its name: a run's header has its version."""
    package = module.partition(".")[0]
    return package in NAMED_PACKAGES or package in sys.stdlib_module_names - {"__main__"}


def short_hash(value: Any) -> str:
    """A short hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def parsed_source(function: types.FunctionType) -> Any:
    """The syntax tree of a function as nested lists; None without a source."""
    code = function.__code__
    try:
        lines, _ = inspect.findsource(function)
        nodes = _function_nodes("".join(lines))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    matching = [node for node in nodes if _defines(node, code)]
    if len(matching) > 1:  # lambdas on one line, perhaps nested: the innermost begins last
        matching = sorted((node for node in matching if _spans(node.body, code)), key=_begin)[-1:]
    return _syntax_as_lists(matching[0]) if matching else None


@functools.lru_cache(maxsize=8)
def _function_nodes(text: str) -> list[Any]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


def _defines(node: Any, code: types.CodeType) -> bool:
    """Whether code has the name of a function and begins at its first decorator, as it does."""
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    first = [*getattr(node, "decorator_list", ()), node][0]
    return (name, first.lineno) == (code.co_name, code.co_firstlineno)


def _spans(node: Any, code: types.CodeType) -> bool:
    """Whether any instruction of the code was compiled from inside a node."""
    positions: list[Any] = [each for each in code.co_positions() if None not in each]
    end = (node.end_lineno, node.end_col_offset)
    return any(
        _begin(node) <= (line, column) < (end_line, end_column) <= end
        for line, end_line, column, end_column in positions
    )


def _begin(node: Any) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _syntax_as_lists(node: Any) -> Any:
    """A syntax tree as lists, without empty fields, which differ between versions of Python."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12.1 adds empty strings
        parts = [part for part in node.values if getattr(part, "value", None) != ""]
        return [type(node).__name__, _syntax_as_lists(parts)]
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *([name, _syntax_as_lists(value)] for name, value in fields)]
    if isinstance(node, list):
        return [_syntax_as_lists(each) for each in node]
    return repr(node)
