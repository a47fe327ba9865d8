"""A reader of the text that XLA prints of a compiled program: loops, launches, collectives.

What is counted is what a device is told to do, one instruction after another: a fusion, a library
call, a copy are a launch each; names for what is there already (tuples, bitcasts) are none.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Iterator

BYTES = {"pred": 1, "token": 0, "opaque": 0, "s4": 0.5, "u4": 0.5, "c64": 8, "c128": 16}
NO_LAUNCH = frozenset(
    (
        *("add-dependency", "after-all", "async-update", "bitcast", "constant", "domain"),
        *("get-tuple-element", "opt-barrier", "parameter", "partition-id", "replica-id", "tuple"),
    )
)
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "ragged-all-to-all",
    "reduce-scatter",
    "collective-permute",
    "collective-broadcast",
)
NAMES = re.compile(r"%([\w.\-]+)")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)(:[^}]*)?\})?")
FRAME = re.compile(r"(\d+) \{(.*)\}")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def called(self, attribute: str) -> tuple[str, ...]:
        """The computations that an attribute such as `body` names."""
        found = re.search(rf"\b{attribute}=(?:%([\w.\-]+)|\{{([^}}]*)\}})", self.attributes)
        if found is None:
            return ()
        return (found[1],) if found[1] else tuple(NAMES.findall(found[2]))

    @property
    def trip_count(self) -> int | None:
        """How often a loop turns, None where the compiler does not say."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', self.attributes)
        return int(found[1]) if found else None


@dataclasses.dataclass(frozen=True)
class Place:
    """A line of source that an instruction comes from."""

    file: str
    function: str


@dataclasses.dataclass(frozen=True)
class Block:
    """Instructions carried out one after another: a whole program, or the body of a loop."""

    name: str
    """Its computation's."""
    trips: int
    """How often, each time that what is around it is carried out; 1 where that is not known."""
    places: tuple[Place, ...]
    """Where the loop comes from, the innermost function first."""
    launches: Counter[str]
    """By opcode, without those of the loops in it."""
    bytes: float
    """Read and written by those launches."""
    loops: tuple["Block", ...]

    @property
    def total_launches(self) -> int:
        """Of one pass, with those of the loops in it."""
        own = sum(self.launches.values())
        return own + sum(loop.trips * loop.total_launches for loop in self.loops)

    @property
    def total_bytes(self) -> float:
        """Of one pass, with those of the loops in it."""
        return self.bytes + sum(loop.trips * loop.total_bytes for loop in self.loops)

    def find(self, file: str) -> Iterator["Block"]:
        """The outermost loops in it that come from a file, first things first."""
        for loop in self.loops:
            if any(place.file == file for place in loop.places):
                yield loop
            else:
                yield from loop.find(file)


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, tuple[Instruction, ...]]
    entry: str
    frames: dict[int, tuple[Place, ...]]

    def program(self, at_least: float = 0) -> Block:
        """What a device does; `bytes` are those of arrays of `at_least` so many bytes."""
        return _Counting(self, at_least).block(self.entry, 1, ())

    def collectives(self) -> Counter[str]:
        """How many instructions there are in which devices wait for each other, by opcode."""
        found: Counter[str] = Counter()
        for instructions in self.computations.values():
            for each in instructions:
                opcode = each.opcode.removesuffix("-start")
                if opcode in COLLECTIVES:
                    found[opcode] += 1
        return found


def read(text: str | None) -> Module:
    """Read what `compiled.as_text()` gives.

    **Raises:** `ValueError` where that is no compiled program.
    """
    text = text or ""
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, lines = "", None, []
    for line in text.splitlines():
        if name is None:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
            if header:
                name, lines = header[2], []
                entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name], name = tuple(lines), None
        elif " = " in line:
            lines.append(_instruction(line))
    if not entry:
        raise ValueError("no ENTRY in the text: this is not a compiled program.")
    return Module(computations, entry, _frames(text))


def _instruction(line: str) -> Instruction:
    name, _, rest = re.sub(r"/\*.*?\*/", "", line).strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest)
    operands = tuple(NAMES.findall(rest[:end]))
    return Instruction(name.removeprefix("%"), shape, opcode, operands, rest[end:])


def _closing(text: str) -> int:
    """Just past the parenthesis that closes the first character."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")


def _frames(text: str) -> dict[int, tuple[Place, ...]]:
    """The tables of source lines at the head of the text, as chains of places."""
    tables: dict[str, dict[int, str]] = {}
    table: dict[int, str] = {}
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = tables.setdefault(line, {})
        elif line.startswith(("ENTRY", "%")):
            break
        elif found := re.fullmatch(r'(\d+) (?:"(.*)"|\{(.*)\})', line):
            table[int(found[1])] = found[2] or found[3] or ""
    if len(tables) < 4:
        return {}

    def field(row: str, name: str) -> int:
        found = re.search(rf"\b{name}=(\d+)", row)
        return int(found[1]) if found else 0

    def place(frame: str) -> Place:
        location = tables["FileLocations"].get(field(frame, "file_location_id"), "")
        file = tables["FileNames"].get(field(location, "file_name_id"), "")
        function = tables["FunctionNames"].get(field(location, "function_name_id"), "")
        return Place(file.rpartition("/")[2], function.rpartition(".")[2])

    @functools.cache
    def chain(number: int) -> tuple[Place, ...]:
        frame = tables["StackFrames"][number]
        # Parents are numbered from 1, so that 0 is none, and 1 the first frame or the root.
        parent = field(frame, "parent_frame_id") - 1
        above = chain(parent) if parent in tables["StackFrames"] and parent != number else ()
        return (place(frame), *above)

    return {number: chain(number) for number in sorted(tables["StackFrames"])}


class _Counting:
    """The loops and launches of a module, with the shapes at hand that traffic is counted from."""

    def __init__(self, module: Module, at_least: float):
        self.module = module
        self.at_least = at_least

    def block(self, name: str, trips: int, places: tuple[Place, ...]) -> Block:
        launches: Counter[str] = Counter()
        loops: list[Block] = []
        moved = 0.0
        for inner in self._parts(name):
            launches += inner.launches
            moved += inner.bytes
            loops += inner.loops
        return Block(name, trips, places, launches, moved, tuple(loops))

    def _parts(self, name: str) -> Iterator[Block]:
        """What each instruction of a computation comes to."""
        shapes = {each.name: each.shape for each in self.module.computations[name]}
        for each in self.module.computations[name]:
            opcode = each.opcode
            if opcode == "while":
                yield Block(name, 1, (), Counter(), 0.0, (self._loop(each),))
            elif opcode == "call":
                yield from (self.block(called, 1, ()) for called in each.called("to_apply"))
            elif opcode == "async-start":
                yield from (self.block(called, 1, ()) for called in each.called("calls"))
            elif opcode == "conditional":
                yield self._widest(each)
            elif opcode not in NO_LAUNCH and not opcode.endswith("-done"):
                yield Block(name, 1, (), Counter([opcode]), self._traffic(each, shapes), ())

    def _loop(self, loop: Instruction) -> Block:
        found = re.search(r"stack_frame_id=(\d+)", loop.attributes)
        places = self.module.frames.get(int(found[1]), ()) if found else ()
        body = self.block(loop.called("body")[0], loop.trip_count or 1, places)
        if loop.trip_count is not None:  # the host counts; nothing asks the device
            return body
        condition = self.block(loop.called("condition")[0], 1, ())
        return dataclasses.replace(body, launches=body.launches + condition.launches)

    def _widest(self, branches: Instruction) -> Block:
        """The branch of a conditional with the most launches."""
        names = [
            name
            for attribute in ("branch_computations", "true_computation", "false_computation")
            for name in branches.called(attribute)
        ]
        return max(
            (self.block(name, 1, ()) for name in names), key=lambda block: block.total_launches
        )

    def _traffic(self, each: Instruction, shapes: dict[str, str]) -> float:
        """Bytes that a launch reads and writes."""
        operands = [shapes[name] for name in each.operands if name in shapes]
        shape = each.shape
        if each.opcode.endswith("-start"):  # (operands, results, context)
            parts = _parts_of(shape)
            shape = parts[1] if len(parts) > 1 else shape
        called = each.called("calls")
        if called and each.opcode in ("fusion", "fusion-start"):
            return self._fused(called[0], operands, shape)
        if each.opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * self._size(shape, operands[0])
        if each.opcode == "dynamic-update-slice":
            return 2 * self._size(operands[1], operands[0])
        return sum(self._size(part) for part in (*operands, shape))

    def _fused(self, name: str, operands: list[str], shape: str) -> float:
        """Of an operand that is only sliced, the slice is read; what is updated stays in place."""
        inside = self.module.computations[name]
        by_name = {each.name: each for each in inside}
        users: dict[str, list[Instruction]] = {}
        for each in inside:
            for operand in each.operands:
                users.setdefault(operand, []).append(each)
        moved = 0.0
        for each in inside:
            if each.opcode == "parameter":
                moved += self._read(each, users)
        root = inside[-1]
        roots = [by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]
        for each in roots:
            while each.opcode in ("bitcast", "reshape", "copy") and each.operands[0] in by_name:
                if by_name[each.operands[0]].opcode == "parameter":
                    break
                each = by_name[each.operands[0]]
            if each.opcode == "dynamic-update-slice":
                moved += self._size(by_name[each.operands[1]].shape, each.shape)
            else:
                moved += self._size(each.shape)
        return moved

    def _read(self, parameter: Instruction, users: dict[str, list[Instruction]]) -> float:
        moved = 0.0
        waiting = [parameter.name]
        while waiting:
            name = waiting.pop()
            for each in users.get(name, []):
                if each.opcode in ("bitcast", "reshape"):
                    waiting.append(each.name)
                elif each.opcode in ("dynamic-slice", "slice") and each.operands[0] == name:
                    moved += self._size(each.shape, parameter.shape)
                elif each.opcode != "dynamic-update-slice" or each.operands[0] != name:
                    return self._size(parameter.shape)
        return min(moved, self._size(parameter.shape))

    def _size(self, shape: str, whole: str | None = None) -> float:
        """Bytes of a shape, where the whole that it is a part of is large enough to count."""
        if whole is not None:
            return size(shape) if size(whole) >= self.at_least else 0.0
        return sum(each for each in map(size, _parts_of(shape)) if each >= self.at_least)


def _parts_of(shape: str) -> list[str]:
    """The shapes in a tuple; a shape by itself."""
    if not shape.startswith("("):
        return [shape]
    parts, depth, start = [], 0, 1
    for i, char in enumerate(shape):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        if depth == (0 if i == len(shape) - 1 else 1) and (char == "," or i == len(shape) - 1):
            parts.append(shape[start:i].strip())
            start = i + 1
    return [part for part in parts if part]


def size(shape: str) -> float:
    """Bytes of a shape as it lies in the device's memory: padded to its tiles.

    What the compiler keeps on the chip, in another memory space than 0, has none.
    """
    total = 0.0
    for kind, dims, order, layout in ARRAY.findall(shape):
        if re.search(r"S\([1-9]\d*\)", layout):
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
    return int(bits[0]) / 8 if bits else 0
