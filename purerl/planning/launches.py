"""Counts the launches of a compiled program, and the bytes that they read and write.

A fusion, a library call and a copy are a launch each. Tuples, bitcasts and the like are none: they
only give a new name to what is there.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from purerl.checks import ceil_div
from purerl.planning.hlo import Instruction, Module, SourceLocation

NO_LAUNCH = (
    *("add-dependency", "after-all", "async-update", "bitcast", "constant", "domain"),
    *("get-tuple-element", "opt-barrier", "parameter", "partition-id", "replica-id", "tuple"),
)
BYTES = {"pred": 1.0, "token": 0.0, "opaque": 0.0, "s4": 0.5, "u4": 0.5, "c64": 8.0, "c128": 16.0}
RENAMES = ("AllocateBuffer", "ConcatBitcast", "Sharding")  # custom calls that do nothing
RESHAPES = ("bitcast", "reshape")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)(:[^}]*)?\})?")


@dataclasses.dataclass(frozen=True)
class LaunchBlock:
    """The launches of a whole program, or of one iteration of a loop."""

    launches: Counter[str]
    """By opcode, without those of the loops in it."""
    bytes: float
    """Read and written by those launches."""
    loops: tuple["LaunchBlock", ...]
    trips: int = 1
    """Iterations of a loop in each one of what is around it; 1 where that is not known."""
    places: tuple[SourceLocation, ...] = ()
    """Where a loop comes from, the innermost function first."""

    @property
    def total_launches(self) -> int:
        """Of one iteration, with those of the loops in it."""
        own = sum(self.launches.values())
        return own + sum(loop.trips * loop.total_launches for loop in self.loops)

    @property
    def total_bytes(self) -> float:
        """Of one iteration, with those of the loops in it."""
        return self.bytes + sum(loop.trips * loop.total_bytes for loop in self.loops)

    def find(self, file: str) -> Iterator["LaunchBlock"]:
        """The outermost loops in it that come from a file, in their order."""
        for loop in self.loops:
            if any(place.file == file for place in loop.places):
                yield loop
            else:
                yield from loop.find(file)


def count_launches(module: Module, min_bytes: int = 0) -> LaunchBlock:
    """The launches of a whole program; arrays smaller than `min_bytes` have no traffic."""
    return LaunchCounter(module, min_bytes).block(module.entry)


@dataclasses.dataclass(frozen=True)
class LaunchCounter:
    """Counts the launches of a program, and the traffic of its larger arrays."""

    module: Module
    min_bytes: int

    def block(self, name: str) -> LaunchBlock:
        """The launches of a computation, instruction by instruction."""
        instructions = self.module.computations[name]
        shapes = {instruction.name: instruction.shape for instruction in instructions}
        return _merge_blocks([self.part(instruction, shapes) for instruction in instructions])

    def part(self, instruction: Instruction, shapes: dict[str, str]) -> LaunchBlock:
        """What one instruction adds to a computation with these shapes."""
        if instruction.opcode == "while":
            return LaunchBlock(Counter(), 0.0, (self.loop(instruction),))
        if instruction.opcode == "call":
            return self.block(instruction.called("to_apply")[0])
        if instruction.opcode == "async-start":
            return self.block(instruction.called("calls")[0])
        if instruction.opcode == "conditional":
            return self.busiest_branch(instruction)
        if not _is_launch(instruction):
            return LaunchBlock(Counter(), 0.0, ())
        return LaunchBlock(Counter([instruction.opcode]), self.traffic(instruction, shapes), ())

    def loop(self, loop: Instruction) -> LaunchBlock:
        body = self.block(loop.called("body")[0])
        trips = self.module.trip_count(loop)
        if trips is None:  # else the host counts the iterations, without the condition
            body = _merge_blocks([body, self.block(loop.called("condition")[0])])
        places = self.module.stack_frames.get(loop.stack_frame, ())
        return dataclasses.replace(body, trips=1 if trips is None else trips, places=places)

    def busiest_branch(self, conditional: Instruction) -> LaunchBlock:
        """The branch of a conditional with the most launches."""
        attributes = ("branch_computations", "true_computation", "false_computation")
        names = [name for attribute in attributes for name in conditional.called(attribute)]
        blocks = (self.block(name) for name in names)
        return max(blocks, key=lambda block: block.total_launches)

    def traffic(self, launch: Instruction, shapes: dict[str, str]) -> float:
        """Bytes that a launch reads and writes."""
        operands = [shapes[name] for name in launch.operands if name in shapes]
        results = _tuple_shapes(launch.shape)
        opcode = launch.opcode.removesuffix("-start")
        # What `-start` gives holds its operands first.
        if launch.opcode != opcode and len(results) > 1:
            results = _tuple_shapes(results[0 if opcode == "copy" else 1])
        if opcode == "fusion":
            return self.fusion_traffic(launch.called("calls")[0], results)
        if opcode in ("dynamic-slice", "slice", "gather"):
            read = self.slice_bytes(results[0], operands[0])
            return read + self.slice_bytes(results[0], results[0])
        if opcode == "dynamic-update-slice":
            return 2 * self.slice_bytes(operands[1], operands[0])
        whole = (*results, *(part for shape in operands for part in _tuple_shapes(shape)))
        return sum((self.slice_bytes(part, part) for part in whole), 0.0)

    def fusion_traffic(self, name: str, results: list[str]) -> float:
        """Bytes that a fusion moves: of a sliced or updated array, the slice alone."""
        fused = self.module.computations[name]
        users: dict[str, list[Instruction]] = {}
        for instruction in fused:
            for operand in instruction.operands:
                users.setdefault(operand, []).append(instruction)
        parameters = [instruction for instruction in fused if instruction.opcode == "parameter"]
        read = sum((self.bytes_read(parameter, users) for parameter in parameters), 0.0)
        by_name = {instruction.name: instruction for instruction in fused}
        root = fused[-1]
        # A reduction of several arrays has several results without a tuple.
        roots = [by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]
        roots = roots if len(roots) == len(results) else [root] * len(results)
        pairs = zip(roots, results, strict=True)
        return read + sum(self.bytes_written(root, result, by_name) for root, result in pairs)

    def bytes_read(self, parameter: Instruction, users: dict[str, list[Instruction]]) -> float:
        """Bytes of a parameter that a fusion reads."""
        whole = self.slice_bytes(parameter.shape, parameter.shape)
        moved = 0.0
        for name, user in _uses(parameter.name, users):
            is_first = user.operands[0] == name
            if user.opcode in ("dynamic-slice", "slice") and is_first:
                moved += self.slice_bytes(user.shape, parameter.shape)
            elif user.opcode != "dynamic-update-slice" or not is_first:
                return whole
        return min(moved, whole)

    def bytes_written(self, root: Instruction, result: str, fused: dict[str, Instruction]) -> float:
        """Bytes of a fusion's result that its root writes."""
        while root.opcode in RESHAPES:
            root = fused[root.operands[0]]
        is_update = root.opcode == "dynamic-update-slice"
        return self.slice_bytes(fused[root.operands[1]].shape if is_update else result, result)

    def slice_bytes(self, part: str, whole: str) -> float:
        """Bytes of a part of an array, 0 where the array is on the chip, or too small to count."""
        full = shape_bytes(whole)
        return min(shape_bytes(part, anywhere=True), full) if full >= self.min_bytes else 0.0


def _merge_blocks(blocks: Sequence[LaunchBlock]) -> LaunchBlock:
    return LaunchBlock(
        launches=sum((block.launches for block in blocks), Counter()),
        bytes=sum((block.bytes for block in blocks), 0.0),
        loops=tuple(loop for block in blocks for loop in block.loops),
    )


def _is_launch(instruction: Instruction) -> bool:
    if instruction.opcode in NO_LAUNCH or instruction.opcode.endswith("-done"):
        return False
    if re.match(r"\w+\[\]\{:", instruction.shape):  # a TPU's scalar: a unit of its own computes it
        return False
    return not any(f'custom_call_target="{name}"' in instruction.attributes for name in RENAMES)


def _uses(name: str, users: dict[str, list[Instruction]]) -> Iterator[tuple[str, Instruction]]:
    """The instructions that use an array, with its name there: reshaping gives it another."""
    for user in users.get(name, []):
        if user.opcode in RESHAPES:
            yield from _uses(user.name, users)
        else:
            yield name, user


def _tuple_shapes(shape: str) -> list[str]:
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


def shape_bytes(shape: str, *, anywhere: bool = False) -> float:
    """Bytes of a shape in the device's memory, padded to its tiles.

    An array that the compiler keeps on the chip, in another memory space than 0, has none, unless
    the shape counts `anywhere`.
    """
    total = 0.0
    for dtype, dims, order, layout in ARRAY.findall(shape):
        if re.search(r"S\([1-9]\d*\)", layout) and not anywhere:
            continue
        lengths = [int(length) for length in dims.split(",") if length]
        tile = re.search(r"T\(([\d,]+)\)", layout)
        if tile and order:
            edges = [int(edge) for edge in tile[1].split(",")]
            minor_first = [int(dim) for dim in order.split(",")]
            for dim, edge in zip(minor_first, reversed(edges), strict=False):
                lengths[dim] = ceil_div(lengths[dim], edge) * edge
        bits = re.search(r"\d+", dtype)  # f32, bf16, f8e4m3fn
        element = BYTES.get(dtype, int(bits[0]) / 8 if bits else 0.0)
        total += math.prod(lengths) * element
    return total
