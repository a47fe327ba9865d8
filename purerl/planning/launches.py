"""What a device is told to do by a compiled program, one launch after another.

A fusion, a library call, a copy are a launch each; names for what is there already, such as tuples
and bitcasts, are none.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

from purerl.planning.hlo import Instruction, Module, Place

NO_LAUNCH = frozenset(
    (
        *("add-dependency", "after-all", "async-update", "bitcast", "constant", "domain"),
        *("get-tuple-element", "opt-barrier", "parameter", "partition-id", "replica-id", "tuple"),
    )
)
BYTES = {"pred": 1.0, "token": 0.0, "opaque": 0.0, "s4": 0.5, "u4": 0.5, "c64": 8.0, "c128": 16.0}
RENAMES = ("AllocateBuffer", "ConcatBitcast", "Sharding")  # custom calls that do nothing
ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)(:[^}]*)?\})?")


@dataclasses.dataclass(frozen=True)
class Block:
    """Launches one after another: of a whole program, or of one turn of a loop."""

    launches: Counter[str]
    """By opcode, without those of the loops in it."""
    bytes: float
    """Read and written by those launches."""
    loops: tuple["Block", ...]
    trips: int = 1
    """How often it turns, each time that what is around it does; 1 where that is not known."""
    places: tuple[Place, ...] = ()
    """Where a loop comes from, the innermost function first."""

    @property
    def total_launches(self) -> int:
        """Of one turn, with those of the loops in it."""
        own = sum(self.launches.values())
        return own + sum(loop.trips * loop.total_launches for loop in self.loops)

    @property
    def total_bytes(self) -> float:
        """Of one turn, with those of the loops in it."""
        return self.bytes + sum(loop.trips * loop.total_bytes for loop in self.loops)

    def find(self, file: str) -> Iterator["Block"]:
        """The outermost loops in it that come from a file, first things first."""
        for loop in self.loops:
            if any(place.file == file for place in loop.places):
                yield loop
            else:
                yield from loop.find(file)


def launches(module: Module, at_least: int = 0) -> Block:
    """What a device does in a whole program.

    **Arguments:** the traffic is that of arrays of `at_least` so many bytes.
    """
    return _block(module, module.entry, at_least)


def _block(module: Module, name: str, at_least: int) -> Block:
    """A computation that is carried out instruction by instruction."""
    shapes = {each.name: each.shape for each in module.computations[name]}

    def part(each: Instruction) -> Block:
        if each.opcode == "while":
            return Block(Counter(), 0.0, (_loop(module, each, at_least),))
        if each.opcode == "call":
            return _block(module, each.called("to_apply")[0], at_least)
        if each.opcode == "async-start":
            return _block(module, each.called("calls")[0], at_least)
        if each.opcode == "conditional":
            return _widest(module, each, at_least)
        if not _is_launch(each):
            return Block(Counter(), 0.0, ())
        return Block(Counter([each.opcode]), _traffic(module, each, shapes, at_least), ())

    parts = [part(each) for each in module.computations[name]]
    return Block(
        launches=sum((each.launches for each in parts), Counter()),
        bytes=sum((each.bytes for each in parts), 0.0),
        loops=tuple(loop for each in parts for loop in each.loops),
    )


def _is_launch(each: Instruction) -> bool:
    if each.opcode in NO_LAUNCH or each.opcode.endswith("-done"):
        return False
    if re.match(r"\w+\[\]\{:", each.shape):  # a TPU's scalar: a unit of its own computes it
        return False
    return not any(f'custom_call_target="{name}"' in each.attributes for name in RENAMES)


def _loop(module: Module, loop: Instruction, at_least: int) -> Block:
    body = _block(module, loop.called("body")[0], at_least)
    trips = module.trip_count(loop)
    if trips is None:  # else the host counts, and the condition is not asked
        condition = _block(module, loop.called("condition")[0], at_least)
        body = dataclasses.replace(
            body,
            launches=body.launches + condition.launches,
            bytes=body.bytes + condition.bytes,
            loops=body.loops + condition.loops,
        )
    places = module.frames.get(loop.frame, ())
    return dataclasses.replace(body, trips=1 if trips is None else trips, places=places)


def _widest(module: Module, branches: Instruction, at_least: int) -> Block:
    """The branch of a conditional with the most launches."""
    attributes = ("branch_computations", "true_computation", "false_computation")
    names = [name for attribute in attributes for name in branches.called(attribute)]
    blocks = (_block(module, name, at_least) for name in names)
    return max(blocks, key=lambda block: block.total_launches)


def _traffic(module: Module, each: Instruction, shapes: dict[str, str], at_least: int) -> float:
    """Bytes that a launch reads and writes."""
    operands = [shapes[name] for name in each.operands if name in shapes]
    results = _parts(each.shape)
    if each.opcode.endswith("-start") and len(results) > 1:  # fusions have their operands first
        results = _parts(results[0 if each.opcode == "copy-start" else 1])
    opcode = each.opcode.removesuffix("-start")
    if opcode == "fusion":
        return _fused(module, each.called("calls")[0], results, at_least)
    if opcode in ("dynamic-slice", "slice", "gather"):
        read = _slice(results[0], operands[0], at_least)
        return read + _slice(results[0], results[0], at_least)
    if opcode == "dynamic-update-slice":
        return 2 * _slice(operands[1], operands[0], at_least)
    whole = (*results, *(part for shape in operands for part in _parts(shape)))
    return sum((_slice(part, part, at_least) for part in whole), 0.0)


def _fused(module: Module, name: str, results: list[str], at_least: int) -> float:
    """What is only sliced is read as far as that; what is updated is written as far as that."""
    inside = {each.name: each for each in module.computations[name]}
    users: dict[str, list[Instruction]] = {}
    for each in inside.values():
        for operand in each.operands:
            users.setdefault(operand, []).append(each)
    parameters = (each for each in inside.values() if each.opcode == "parameter")
    moved = sum((_read(each, users, at_least) for each in parameters), 0.0)
    root = module.computations[name][-1]
    # A reduction of several arrays has several results without a tuple.
    roots = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    roots = roots if len(roots) == len(results) else [root] * len(results)
    for each, result in zip(roots, results, strict=True):
        while each.opcode in ("bitcast", "reshape"):
            each = inside[each.operands[0]]
        if each.opcode == "dynamic-update-slice":
            moved += _slice(inside[each.operands[1]].shape, result, at_least)
        else:
            moved += _slice(result, result, at_least)
    return moved


def _read(parameter: Instruction, users: dict[str, list[Instruction]], at_least: int) -> float:
    """Bytes of a parameter that a fusion reads."""
    whole = _slice(parameter.shape, parameter.shape, at_least)
    moved, waiting = 0.0, [parameter.name]
    while waiting:
        name = waiting.pop()
        for each in users.get(name, []):
            is_first = each.operands[0] == name
            if each.opcode in ("bitcast", "reshape"):
                waiting.append(each.name)
            elif each.opcode in ("dynamic-slice", "slice") and is_first:
                moved += _slice(each.shape, parameter.shape, at_least)
            elif each.opcode != "dynamic-update-slice" or not is_first:
                return whole
    return min(moved, whole)


def _slice(part: str, whole: str, at_least: int) -> float:
    """Bytes of a part of an array, 0 where the array is on the chip, or too small to count."""
    full = size(whole)
    return min(size(part, anywhere=True), full) if full >= at_least else 0.0


def _parts(shape: str) -> list[str]:
    """The shapes in a tuple; a shape by itself."""
    if not shape.startswith("("):
        return [shape]
    parts, depth = [""], 0
    for char in shape[1:-1]:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part]


def size(shape: str, *, anywhere: bool = False) -> float:
    """Bytes of a shape as it lies in the device's memory: padded to its tiles.

    What the compiler keeps on the chip, in another memory space than 0, has none, unless the shape
    counts `anywhere`.
    """
    total = 0.0
    for kind, dims, order, layout in ARRAY.findall(shape):
        if re.search(r"S\([1-9]\d*\)", layout) and not anywhere:
            continue
        lengths = [int(length) for length in dims.split(",") if length]
        tile = re.search(r"T\(([\d,]+)\)", layout)
        if tile and order:
            edges = [int(edge) for edge in tile[1].split(",")]
            minor_first = [int(dim) for dim in order.split(",")]
            for dim, edge in zip(minor_first, reversed(edges), strict=False):
                lengths[dim] = -(-lengths[dim] // edge) * edge
        total += math.prod(lengths) * _element(kind)
    return total


def _element(kind: str) -> float:
    if kind in BYTES:
        return BYTES[kind]
    bits = re.search(r"\d+", kind)  # f32, bf16, f8e4m3fn
    return int(bits[0]) / 8 if bits else 0.0
