"""Reads the text that XLA prints of a compiled program.

A program is a set of computations, which are lists of instructions. Loops and fusions name the
computations that they run. Tables at the head say where in the source each instruction comes from.
"""

import dataclasses
import functools
import re
from collections import Counter

COLLECTIVES = (
    *("all-reduce", "all-gather", "all-to-all", "ragged-all-to-all", "reduce-scatter"),
    *("collective-permute", "collective-broadcast"),
)
NAMES = re.compile(r"%([\w.\-]+)")
TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


@dataclasses.dataclass(frozen=True)
class SourceLocation:
    """A function in a file of source."""

    file: str
    function: str


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    constant: int | None = None

    def called(self, attribute: str) -> tuple[str, ...]:
        """The computations that an attribute such as `body` names."""
        match = re.search(rf"\b{attribute}=(?:%([\w.\-]+)|\{{([^}}]*)\}})", self.attributes)
        if match is None:
            return ()
        return (match[1],) if match[1] else tuple(NAMES.findall(match[2]))

    @property
    def stack_frame(self) -> int:
        """The number of its stack frame, 0 for none."""
        return _number(self.attributes, "stack_frame_id")


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, tuple[Instruction, ...]]
    entry: str
    stack_frames: dict[int, tuple[SourceLocation, ...]]
    """The functions around an instruction, the innermost first, by number."""

    def trip_count(self, loop: Instruction) -> int | None:
        """How many iterations a loop has, None where that is not known.

        A TPU's compiler does not say. There the bound of the condition is taken: jax's loops of a
        fixed length count from 0, by 1.
        """
        match = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if match:
            return int(match[1])
        condition = self.computations[loop.called("condition")[0]]
        test = condition[-1]
        if test.opcode != "compare" or "direction=LT" not in test.attributes:
            return None
        constants = {instruction.name: instruction.constant for instruction in condition}
        return constants.get(test.operands[1])

    def collectives(self) -> Counter[str]:
        """The number of instructions in which devices wait for each other, by opcode."""
        opcodes = (
            instruction.opcode.removesuffix("-start")
            for instructions in self.computations.values()
            for instruction in instructions
        )
        return Counter(opcode for opcode in opcodes if opcode in COLLECTIVES)


def parse_hlo(text: str | None) -> Module:
    """Read the text of `compiled.as_text()`.

    **Raises:** `ValueError` where it is no compiled program.
    """
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, instructions = "", None, []
    for line in (text or "").splitlines():
        if name is None:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
            if header:
                name, instructions = header[2], []
                entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name], name = tuple(instructions), None
        elif " = " in line:
            instructions.append(_instruction(line))
    if not entry:
        raise ValueError("no ENTRY in the text: this is not a compiled program.")
    return Module(computations, entry, _call_stacks(_tables(text or "")))


def _instruction(line: str) -> Instruction:
    name, _, rest = re.sub(r"/\*.*?\*/", "", line).strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest)
    arguments, attributes = rest[1 : end - 1], rest[end:]
    is_integer = opcode == "constant" and re.fullmatch(r"-?\d+", arguments)
    constant = int(arguments) if is_integer else None
    operands = tuple(NAMES.findall(arguments))
    return Instruction(name.removeprefix("%"), shape, opcode, operands, attributes, constant)


def _closing(text: str) -> int:
    """The index just past the parenthesis that closes the first character."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.end()
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")


def _tables(text: str) -> dict[str, dict[int, str]]:
    """The rows of the tables at the head of the text, by table and number."""
    tables: dict[str, dict[int, str]] = {name: {} for name in TABLES}
    table: dict[int, str] = {}
    for line in text.splitlines():
        if line in tables:
            table = tables[line]
        elif line.startswith(("ENTRY", "%")):
            break
        elif row := re.fullmatch(r'(\d+) (?:"(.*)"|\{(.*)\})', line):
            table[int(row[1])] = row[2] or row[3] or ""
    return tables


def _call_stacks(tables: dict[str, dict[int, str]]) -> dict[int, tuple[SourceLocation, ...]]:
    """The functions around each stack frame, the innermost first."""
    stack_frames = tables["StackFrames"]

    @functools.cache
    def call_stack(number: int) -> tuple[SourceLocation, ...]:
        stack_frame = stack_frames[number]
        # XLA counts parents from 1: 0 is none given, and a root is written as its own parent.
        parent = _number(stack_frame, "parent_frame_id") - 1
        callers = call_stack(parent) if parent in stack_frames else ()
        return (_source_location(tables, stack_frame), *callers)

    return {number: call_stack(number) for number in sorted(stack_frames)}


def _source_location(tables: dict[str, dict[int, str]], stack_frame: str) -> SourceLocation:
    files, functions, locations, _ = (tables[name] for name in TABLES)
    location = locations.get(_number(stack_frame, "file_location_id"), "")
    file = files.get(_number(location, "file_name_id"), "").rpartition("/")[2]
    function = functions.get(_number(location, "function_name_id"), "").rpartition(".")[2]
    return SourceLocation(file, function)


def _number(text: str, name: str) -> int:
    """The number in `name=number`, 0 where there is none."""
    match = re.search(rf"\b{name}=(\d+)", text)
    return int(match[1]) if match else 0
