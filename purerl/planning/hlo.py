"""A reader of the text that XLA prints of a compiled program.

A program is computations, lists of instructions; loops and fusions name the computations that they
carry out. At the head of the text stands which line of source each instruction comes from.
"""

import dataclasses
import functools
import re
from collections import Counter

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
TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


@dataclasses.dataclass(frozen=True)
class Place:
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
        found = re.search(rf"\b{attribute}=(?:%([\w.\-]+)|\{{([^}}]*)\}})", self.attributes)
        if found is None:
            return ()
        return (found[1],) if found[1] else tuple(NAMES.findall(found[2]))

    @property
    def frame(self) -> int:
        """The number of its stack frame, 0 for none."""
        found = re.search(r"\bstack_frame_id=(\d+)", self.attributes)
        return int(found[1]) if found else 0


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, tuple[Instruction, ...]]
    entry: str
    frames: dict[int, tuple[Place, ...]]
    """The functions around an instruction, the innermost first."""

    def trip_count(self, loop: Instruction) -> int | None:
        """How often a loop turns, None where that is not known.

        A TPU's compiler does not say; jax's loops of a fixed length count from 0, by 1.
        """
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if found:
            return int(found[1])
        condition = self.computations[loop.called("condition")[0]]
        compared = condition[-1]
        if compared.opcode != "compare" or "direction=LT" not in compared.attributes:
            return None
        bounds = [each for each in condition if each.name == compared.operands[1]]
        return bounds[0].constant if bounds else None

    def collectives(self) -> Counter[str]:
        """How many instructions there are in which devices wait for each other, by opcode."""
        opcodes = (
            each.opcode.removesuffix("-start")
            for instructions in self.computations.values()
            for each in instructions
        )
        return Counter(opcode for opcode in opcodes if opcode in COLLECTIVES)


def read(text: str | None) -> Module:
    """Read what `compiled.as_text()` gives.

    **Raises:** `ValueError` where that is no compiled program.
    """
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, lines = "", None, []
    for line in (text or "").splitlines():
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
    return Module(computations, entry, _frames(text or ""))


def _instruction(line: str) -> Instruction:
    name, _, rest = re.sub(r"/\*.*?\*/", "", line).strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest)
    inside, attributes = rest[1 : end - 1], rest[end:]
    constant = int(inside) if opcode == "constant" and re.fullmatch(r"-?\d+", inside) else None
    operands = tuple(NAMES.findall(inside))
    return Instruction(name.removeprefix("%"), shape, opcode, operands, attributes, constant)


def _closing(text: str) -> int:
    """Just past the parenthesis that closes the first character."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")


def _frames(text: str) -> dict[int, tuple[Place, ...]]:
    """Each stack frame as the chain of places that leads to it."""
    tables: dict[str, dict[int, str]] = {name: {} for name in TABLES}
    table: dict[int, str] = {}
    for line in text.splitlines():
        if line in tables:
            table = tables[line]
        elif line.startswith(("ENTRY", "%")):
            break
        elif found := re.fullmatch(r'(\d+) (?:"(.*)"|\{(.*)\})', line):
            table[int(found[1])] = found[2] or found[3] or ""
    files, functions, locations, frames = (tables[name] for name in TABLES)

    def field(row: str, name: str) -> int:
        found = re.search(rf"\b{name}=(\d+)", row)
        return int(found[1]) if found else 0

    @functools.cache
    def chain(number: int) -> tuple[Place, ...]:
        location = locations.get(field(frames[number], "file_location_id"), "")
        file = files.get(field(location, "file_name_id"), "").rpartition("/")[2]
        function = functions.get(field(location, "function_name_id"), "").rpartition(".")[2]
        # XLA counts parents from 1: 0 is none given, and a root is written as its own parent.
        parent = field(frames[number], "parent_frame_id") - 1
        above = chain(parent) if parent in frames else ()
        return (Place(file, function), *above)

    return {number: chain(number) for number in sorted(frames)}
