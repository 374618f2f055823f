"""Reader of a compiled program's text: what it sends, and its largest arrays."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64}
_ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+|f8\w+)\[([\d,]*)\](\{[^}]*\})?")
_NEAR = re.compile(r"S\([1-9]")  # Of a layout: in the chip's own small memory.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) \(")
_CALLED = re.compile(r"(?:calls|to_apply|body|async_execution_thread_body)=%?([\w.\-]+)")
_SENDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
# These name what others have made, or are made of parts that are counted.
_VIEWS = {"parameter", "get-tuple-element", "tuple", "while", "bitcast", "constant", "conditional"}
_WHOLE = {"fusion", "reduce", "sort", "scatter", "map", "reduce-window", "select-and-scatter"}
_PARTS_OUT, _PARTS_IN = {"dynamic-slice", "slice", "gather"}, {"dynamic-update-slice", "scatter"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      name: of the result.
      kind: of the operation.
      arrays: bytes of each array of the result.
      rest: operands and attributes.
      far: bytes of the result that lie in the large memory.
    """

    name: str
    kind: str
    arrays: tuple[int, ...]
    rest: str
    far: int = 0

    @property
    def operands(self) -> list[str]:
        """The names of what it reads."""
        return re.findall(r"%([\w.\-]+)", re.split(r"\)(?:,|$)", self.rest)[0])

    @property
    def source(self) -> str:
        """Its origin in the traced program, or its own name."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else self.name


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      computations: the instructions of each.
      entry: the name of the first to run.
    """

    computations: Mapping[str, list[Instruction]]
    entry: str

    def traffic(self) -> dict[str, float]:
        """Bytes that each device sends in one run, by kind of collective; loops as they run."""
        sent: collections.Counter[str] = collections.Counter()
        for line, _, times in self._executed(self.entry, 1):
            kind = line.kind.removesuffix("-start")
            if kind in _SENDS:
                # Of a started one the result names its operand too: the larger is what comes.
                size = max(line.arrays) if line.kind.endswith("-start") else sum(line.arrays)
                sent[kind] += times * size * (2 if kind == "all-reduce" else 1)
        return dict(sent)

    def moved(self) -> float:
        """Bytes that a device reads from and writes to its memory in one run; loops as they run.

        A part that is cut out of an array, or written into one, counts alone.
        """
        sizes = {name: {x.name: x.far for x in lines} for name, lines in self.computations.items()}
        return float(
            sum(
                times * self._bytes_of(line, sizes[within])
                for line, within, times in self._executed(self.entry, 1)
            )
        )

    def largest(self, count: int = 5) -> list[tuple[str, int]]:
        """The largest arrays that it makes: where they come from, and their bytes."""
        found: dict[str, int] = {}
        for name, lines in self.computations.items():
            if name.startswith(("fused_", "region_")):  # Inside of one instruction.
                continue
            for line in lines:
                if line.kind not in _VIEWS and line.arrays:
                    found[line.source] = max(found.get(line.source, 0), max(line.arrays))
        return sorted(found.items(), key=lambda item: -item[1])[:count]

    def _executed(self, name: str, times: int) -> Iterator[tuple[Instruction, str, int]]:
        """Every instruction that runs by itself, the computation it is in, and how often."""
        for line in self.computations.get(name, ()):
            yield line, name, times
            inner = times * self._trips(line)
            if line.kind not in _WHOLE:
                for called in _CALLED.findall(line.rest):
                    yield from self._executed(called, inner)

    def _bytes_of(self, line: Instruction, sizes: Mapping[str, int]) -> int:
        if line.kind in _VIEWS or line.kind.endswith(("-done", "-update")):
            return 0
        operands = [sizes.get(name, 0) for name in line.operands]
        if line.kind.endswith("-start"):
            return max(operands, default=0)
        if line.kind in _PARTS_OUT:
            return 2 * line.far
        if line.kind in _PARTS_IN:
            return 2 * min(operands[1 : 2 + (line.kind == "scatter")], default=0)
        if line.kind != "fusion":
            return line.far + sum(operands)
        return self._bytes_of_fusion(self._called(line), line.far, operands)

    def _bytes_of_fusion(self, lines: list[Instruction], out: int, operands: list[int]) -> int:
        """Of a fused computation, whose parameters may be read, and result written, in part."""
        total = max(out - self._unwritten(lines), 0)
        for line in lines:
            place = re.match(r"(\d+)\)", line.rest) if line.kind == "parameter" else None
            if place and int(place[1]) < len(operands):
                whole = operands[int(place[1])]
                part = self._read(lines, line.name)
                total += whole if part is None else min(part, whole)
        return total

    def _unwritten(self, lines: list[Instruction]) -> int:
        """Bytes that a fused computation writes of arrays that it updates in part."""
        inside, total = {x.name: x for x in lines}, 0
        for line in lines:
            if line.kind == "dynamic-update-slice" and line.operands[1] in inside:
                total += sum(line.arrays) - sum(inside[line.operands[1]].arrays)
            elif line.kind == "fusion":
                total += self._unwritten(self._called(line))
        return total

    def _read(self, lines: list[Instruction], name: str) -> int | None:
        """The bytes that a fused computation reads of an array, None for all of them."""
        total = 0
        for user in lines:
            for place, operand in enumerate(user.operands):
                if operand != name:
                    continue
                part = self._part(user, place)
                if part is None:
                    return None
                total += part
        return total

    def _part(self, user: Instruction, place: int) -> int | None:
        """The bytes that an instruction reads of its operand at a place, None for all of them."""
        if user.kind in _PARTS_OUT and place == 0:
            return sum(user.arrays)
        if user.kind == "dynamic-update-slice" and place == 0:
            return 0
        if user.kind != "fusion":
            return None
        lines = self._called(user)
        mark = f"{place})"
        own = [x.name for x in lines if x.kind == "parameter" and x.rest.startswith(mark)]
        return self._read(lines, own[0]) if own else None

    def _called(self, line: Instruction) -> list[Instruction]:
        """The instructions of the computation that a fusion calls."""
        return self.computations.get(_CALLED.findall(line.rest)[0], [])

    def _trips(self, line: Instruction) -> int:
        """Trip count of a loop that counts up to a constant; 1 where it is unknown."""
        if line.kind != "while":
            return 1
        if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', line.rest):
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", line.rest)
        lines = self.computations.get(condition[1], []) if condition else []
        bounds = [
            int(found[1])
            for x in lines
            if x.kind == "constant" and (found := re.match(r"(\d+)\)", x.rest))
        ]
        return bounds[0] if len(bounds) == 1 and any(x.kind == "compare" for x in lines) else 1


def read(text: str) -> Program:
    """The program of `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = head[1]
            computations[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif (found := _INSTRUCTION.match(line)) and current:
            name, shape, kind, rest = found.groups()
            found_arrays = [(_bytes(*array[:2]), array[2]) for array in _ARRAY.findall(shape)]
            arrays = tuple(size for size, _ in found_arrays)
            far = sum(size for size, layout in found_arrays if not _NEAR.search(layout))
            computations[current].append(Instruction(name, kind, arrays, rest, far))
    return Program(computations, entry)


def _bytes(dtype: str, shape: str) -> int:
    bits = _BITS.get(dtype) or int(re.search(r"\d+", dtype)[0])
    size = 1
    for side in filter(None, shape.split(",")):
        size *= int(side)
    return size * bits // 8
