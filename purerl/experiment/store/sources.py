"""The source of a function as data: equal wherever it stands, and in every version of Python."""

import ast
import functools
import inspect
import types
from typing import Any


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
    return _plain(found[0]) if found else None


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


def _plain(node: Any) -> Any:
    """A syntax tree as lists; fields that are empty are left out, as they differ with versions."""
    if isinstance(node, ast.JoinedStr):  # to which Python 3.12.1 adds empty strings
        parts = [each for each in node.values if getattr(each, "value", None) != ""]
        return [type(node).__name__, _plain(parts)]
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *([name, _plain(value)] for name, value in fields)]
    if isinstance(node, list):
        return [_plain(each) for each in node]
    return repr(node)
