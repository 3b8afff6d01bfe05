"""What a compiled step moves: between devices, and between a device and its memory.

Between devices, bytes that one device sends, as ring algorithms do (g devices, S bytes of the
whole array): all-gather and reduce-scatter S (g-1)/g, all-reduce twice that, all-to-all S (g-1)/g,
collective-permute S. A collective that the compiler spread over several fusions is one: they
share its channel. What goes to other slices is told apart: libtpu hands it to the host, as a
`send` that names the kind of transfer and the slices.

Memory traffic is what every fusion reads and writes outside the chip; of an array that is only
sliced (or updated in place), the slice. It is an estimate: caches and reuse are not modelled.
"""

from __future__ import annotations

import math
import re

from tga_jax.planning.hlo import Computation, Instruction, Program

SCATTER = "all-reduce-scatter"  # how TPUs write a reduce-scatter: every device keeps its part
_OPS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_ALLOCATION = 'custom_call_target="AllocateBuffer"'  # room for a result, written elsewhere
_NO_TRAFFIC = frozenset(
    "parameter constant get-tuple-element tuple bitcast while conditional call after-all "
    "partition-id replica-id opt-barrier iota".split()
)
_SLICES = ("dynamic-slice", "slice", "gather")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_TARGET = re.compile(r'_xla_megascale_target="\{([\d,:]+)\}')
_SIZES = re.compile(r"'([^']+)'=(\d+)")


def collective_bytes(program: Program, *, devices: int) -> dict[str, float]:
    """Bytes that one device sends in a step, by kind of collective."""
    found: dict[str, tuple[str, float]] = {}
    for computation, times in program.runs():
        for where, instruction in program.inside(computation.name):
            kind = _kind(instruction)
            if kind is None:
                continue
            if where.startswith("all-reduce-scatter"):
                kind = SCATTER
            channel = _CHANNEL.search(instruction.text)
            key = channel[1] if channel else instruction.name
            sent = times * _sent(instruction, kind, devices)
            kept = found.get(key, (kind, 0.0))
            found[key] = (kind, max(kept[1], sent))
    out: dict[str, float] = {}
    for kind, sent in found.values():
        out[kind] = out.get(kind, 0.0) + sent
    return out


def network_bytes(program: Program) -> float:
    """Bytes that one device sends to other slices in a step."""
    return sum(
        times * _sent_to_slices(instruction)
        for computation, times in program.runs()
        for instruction in computation.instructions
        if instruction.opcode == "send" and _TRANSFER.search(instruction.text)
    )


def memory_traffic(program: Program) -> float:
    """Bytes that one device reads from and writes to its memory in a step."""
    total = 0.0
    for computation, times in program.runs():
        total += times * sum(_moved(program, computation, i) for i in computation.instructions)
    return total


def group_size(text: str, devices: int) -> int:
    """How many devices take part, from `replica_groups` in any of its three notations."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text)
    if mesh is not None:
        sizes = dict(_SIZES.findall(mesh[1]))
        named = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in named)
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", text)
    if iota is not None:
        return int(iota[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    return len(listed[1].split(",")) if listed is not None else devices


def _kind(instruction: Instruction) -> str | None:
    name = instruction.opcode.removesuffix("-start")
    return name if name in _OPS else None


def _sent(instruction: Instruction, kind: str, devices: int) -> float:
    arrays = [array.bytes for array in instruction.arrays]
    if kind == "collective-permute":
        return arrays[0]
    # A start's result holds its operand too; what is gathered is the larger one.
    whole = max(arrays) if instruction.opcode.endswith("-start") else sum(arrays)
    group = group_size(instruction.text, devices)
    if kind == "reduce-scatter":
        return whole * (group - 1)
    return whole * (group - 1) / group * (2 if kind == "all-reduce" else 1)


def _sent_to_slices(send: Instruction) -> float:
    """Of one transfer between g slices: S is what the device puts in."""
    (kind,), (target,) = _TRANSFER.findall(send.text), _TARGET.findall(send.text)
    ranges = [[int(end) for end in part.split(":")] for part in target.split(",")]
    group = sum(ends[-1] - ends[0] + 1 for ends in ranges)
    size = send.arrays[0].bytes
    if kind == "ALL_GATHER":
        return size * (group - 1)
    if kind in ("ALL_REDUCE", "REDUCE_SCATTER", "ALL_TO_ALL"):
        return size * (group - 1) / group * (2 if kind == "ALL_REDUCE" else 1)
    return size


def _moved(program: Program, computation: Computation, instruction: Instruction) -> float:
    """Bytes of main memory that one run of an instruction reads and writes."""
    opcode = instruction.opcode
    if opcode in _NO_TRAFFIC or opcode.endswith("-done") or opcode == "async-update":
        return 0
    if _ALLOCATION in instruction.text:
        return 0
    operands = [computation.by_name[n] for n in instruction.operands if n in computation.by_name]
    if opcode == "fusion":
        inner = _called(program, instruction)
        return _fusion_moved(program, inner, instruction, operands)
    if opcode == "async-start":
        root = _called(program, instruction).root
        return _moved_beside(root, instruction, operands)
    if opcode in _SLICES:
        return 2 * _main(instruction)
    if opcode == "dynamic-update-slice":
        return 2 * _main(operands[1])
    written = instruction.arrays[:1] if opcode.endswith("-start") else instruction.arrays
    return sum(a.bytes for a in written if a.main) + sum(map(_main, operands))


def _moved_beside(root: Instruction, start: Instruction, operands: list[Instruction]) -> float:
    """Of work that runs beside other work: `start` has its operands and then its result."""
    result = start.arrays[sum(len(operand.arrays) for operand in operands)]
    read = root.bytes if root.opcode in _SLICES else sum(map(_main, operands))
    return read + result.bytes * result.main


def _fusion_moved(
    program: Program, inner: Computation, fusion: Instruction, operands: list[Instruction]
) -> float:
    parameters = _parameters(inner)
    total = 0.0
    for number, operand in enumerate(operands):
        if _main(operand) and number in parameters:
            total += min(_main(operand), _read(program, inner, parameters[number]))
    results = [inner.root]
    if inner.root.opcode == "tuple":
        results = [inner.by_name[name] for name in inner.root.operands]
    for result, array in zip(results, fusion.arrays, strict=False):
        if array.main:
            total += _written(program, inner, result, array.bytes)
    return total


def _called(program: Program, instruction: Instruction) -> Computation:
    """What a fusion, or work beside other work, computes."""
    return program.computations[instruction.called("calls")[0]]


def _parameters(inner: Computation) -> dict[int, Instruction]:
    """The parameters of a fusion by their numbers."""
    found = ((re.search(r"parameter\((\d+)\)", i.text), i) for i in inner.instructions)
    return {int(match[1]): i for match, i in found if match}


def _read(program: Program, inner: Computation, value: Instruction) -> float:
    """How much of a parameter the users of `value` read."""
    total = 0.0
    for user in inner.users.get(value.name, []):
        if user.opcode == "bitcast":
            total += _read(program, inner, user)
        elif user.opcode in _SLICES:
            total += user.bytes
        elif user.opcode == "fusion":
            nested = _called(program, user)
            parameters = _parameters(nested)
            for number, name in enumerate(user.operands):
                if name == value.name:
                    total += _read(program, nested, parameters[number])
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
            continue
        elif user.opcode != "tuple" and _kind(user) is None:
            return value.bytes
    return min(total, value.bytes)


def _written(program: Program, inner: Computation, result: Instruction, size: int) -> float:
    """How much of a result is written: an update's slice, nothing where it only passes through."""
    while result.opcode == "bitcast":
        result = inner.by_name[result.operands[0]]
    if result.opcode == "fusion" and len(result.arrays) == 1:
        nested = _called(program, result)
        return _written(program, nested, nested.root, size)
    # A collective that is under way passes through the fusions beside it; the last one counts.
    if result.opcode == "parameter" or _kind(result) is not None:
        return 0
    if result.opcode == "dynamic-update-slice":
        return inner.by_name[result.operands[1]].bytes
    return size


def _main(instruction: Instruction) -> int:
    return sum(array.bytes for array in instruction.arrays if array.main)
