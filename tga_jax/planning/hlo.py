"""A compiled program's text as computations and instructions, and how often each one runs."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator

BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"(calls|body|condition|to_apply|\w*computations?)=(\{[^}]*\}|%[\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_MEMORY = re.compile(r"S\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """Bytes of an array, and whether it lies in the device's main memory (not on the chip)."""

    bytes: int
    main: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = arrays opcode(operands), attributes`; `arrays` has several for a tuple."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str
    root: bool

    def called(self, kind: str) -> list[str]:
        """Computations named by the attribute `kind`."""
        found = [names for key, names in _CALLED.findall(self.text) if key == kind]
        return [name for names in found for name in _NAME.findall(names)]

    @property
    def bytes(self) -> int:
        """The bytes of all arrays that the instruction makes."""
        return sum(array.bytes for array in self.arrays)


@dataclasses.dataclass(frozen=True, eq=False)
class Computation:
    """Instructions in the order of the text."""

    name: str
    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """The instructions of the computation by their names."""
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Which instructions read an instruction."""
        out: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            for operand in instruction.operands:
                out.setdefault(operand, []).append(instruction)
        return out

    @property
    def root(self) -> Instruction:
        """The instruction whose value the computation returns."""
        return next(i for i in self.instructions if i.root)


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A compiled program: its computations, and which of them is the entry."""

    computations: dict[str, Computation]
    entry: str

    def runs(self) -> Iterator[tuple[Computation, int]]:
        """Every computation that is run by itself, and how often; not the insides of fusions."""
        yield from self._runs(self.entry, 1)

    def inside(self, name: str) -> Iterator[tuple[str, Instruction]]:
        """The instructions of a computation and of its fusions, each with where it stands."""
        for instruction in self.computations[name].instructions:
            yield name, instruction
            if instruction.opcode not in ("call", "conditional"):
                for called in instruction.called("calls"):
                    yield from self.inside(called)

    def _runs(self, name: str, times: int) -> Iterator[tuple[Computation, int]]:
        computation = self.computations[name]
        yield computation, times
        for instruction in computation.instructions:
            if instruction.opcode == "while":
                turns = times * self._trips(instruction, computation)
                for body in instruction.called("body"):
                    yield from self._runs(body, turns)
            elif instruction.opcode in ("call", "conditional"):
                names = [n for kind in _BRANCHES for n in instruction.called(kind)]
                for called in names:
                    yield from self._runs(called, times)

    def _trips(self, loop: Instruction, caller: Computation) -> int:
        """A loop's length: as noted, or from its counter's start, step and bound.

        Raises:
            ValueError: it cannot be told.
        """
        known = _TRIPS.search(loop.text)
        if known is not None:
            return int(known[1])
        condition, body = (self.computations[loop.called(k)[0]] for k in ("condition", "body"))
        try:
            place, bound = _compared(condition)
            start = _constant(caller, _element(caller, loop.operands[0], place))
            step = _step(body, place)
        except (KeyError, LookupError, ValueError) as error:
            raise ValueError(f"loop {loop.name}: its length cannot be told") from error
        return -(-(bound - start) // step)


def _compared(condition: Computation) -> tuple[int, int]:
    """Which element of the state is the counter, and what it stays below."""
    root = condition.root
    if root.opcode != "compare" or "direction=LT" not in root.text:
        raise ValueError(root.text)
    counter = condition.by_name[root.operands[0]]
    return _index(counter), _constant(condition, condition.by_name[root.operands[1]])


def _step(body: Computation, place: int) -> int:
    """What a turn adds to the counter."""
    added = _element(body, body.root.name, place)
    while added.opcode in ("copy", "bitcast"):
        added = body.by_name[added.operands[0]]
    if added.opcode != "add":
        raise ValueError(added.text)
    return next(
        _constant(body, side)
        for side in (body.by_name[name] for name in added.operands)
        if side.opcode == "constant"
    )


def _element(computation: Computation, name: str, place: int) -> Instruction:
    state = computation.by_name[name]
    while state.opcode in ("copy", "bitcast"):
        state = computation.by_name[state.operands[0]]
    if state.opcode != "tuple":
        raise ValueError(state.text)
    return computation.by_name[state.operands[place]]


def _constant(computation: Computation, value: Instruction) -> int:
    while value.opcode in ("copy", "bitcast"):
        value = computation.by_name[value.operands[0]]
    match = re.search(r" constant\((-?\d+)\)", value.text)
    if match is None:
        raise ValueError(value.text)
    return int(match[1])


def _index(element: Instruction) -> int:
    match = re.search(r"index=(\d+)", element.text)
    if element.opcode != "get-tuple-element" or match is None:
        raise ValueError(element.text)
    return int(match[1])


_BRANCHES = ("to_apply", "branch_computations", "true_computation", "false_computation", "calls")


def parse_program(text: str) -> Program:
    """The program in the text of a compiled module (`compiled.as_text()`)."""
    computations: dict[str, Computation] = {}
    entry, name = "", ""
    body: list[Instruction] = []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is not None:
            name, body = header[2], []
            entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, tuple(body))
        elif " = " in line and line.startswith("  "):
            body.append(_instruction(line))
    return Program(computations, entry)


def _instruction(line: str) -> Instruction:
    left, right = line.strip().split(" = ", 1)
    shape, rest = _split_shape(right)
    opcode, _, rest = rest.partition("(")
    operands = rest[: _closing("(" + rest) - 1]
    return Instruction(
        name=left.removeprefix("ROOT ").removeprefix("%"),
        opcode=opcode,
        arrays=tuple(map(_array, _ARRAY.findall(shape))),
        operands=tuple(_NAME.findall(operands)),
        text=right,
        root=left.startswith("ROOT "),
    )


def _split_shape(text: str) -> tuple[str, str]:
    if text.startswith("("):
        end = _closing(text) + 1
        return text[:end], text[end:].strip()
    shape, _, rest = text.partition(" ")
    return shape, rest


def _closing(text: str) -> int:
    """Where the bracket that `text` begins with is closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    return len(text)


def _array(match: tuple[str, str, str]) -> Array:
    kind, dims, layout = match
    bits = BITS.get(kind)
    if bits is None:
        digits = re.search(r"\d+", kind)  # s32, u8, f8e4m3fn; "token" has none
        bits = int(digits[0]) if digits else 0
    count = 1
    for dim in filter(None, dims.split(",")):
        count *= int(dim)
    space = _MEMORY.search(layout)
    return Array(count * bits // 8, space is None or space[1] == "0")
