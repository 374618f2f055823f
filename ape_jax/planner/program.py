"""What a compiled program says of itself in its text: what it sends, and its largest arrays."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64}
_ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+|f8\w+)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) \(")
_CALLED = re.compile(r"(?:calls|to_apply|body|async_execution_thread_body)=%?([\w.\-]+)")
_SENDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
# These name what others have made, or are made of parts that are counted.
_VIEWS = {"parameter", "get-tuple-element", "tuple", "while", "bitcast", "constant", "conditional"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      name: of the result.
      kind: of the operation.
      arrays: bytes of each array of the result.
      rest: operands and attributes.
    """

    name: str
    kind: str
    arrays: tuple[int, ...]
    rest: str

    @property
    def source(self) -> str:
        """Where in the traced program it comes from, or its own name."""
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

        def visit(name: str, times: int) -> None:
            for line in self.computations.get(name, ()):
                kind = line.kind.removesuffix("-start")
                if kind in _SENDS:
                    # Of a started one the result names its operand too: the larger is what comes.
                    size = max(line.arrays) if line.kind.endswith("-start") else sum(line.arrays)
                    sent[kind] += times * size * (2 if kind == "all-reduce" else 1)
                inner = times * self._trips(line)
                for called in _CALLED.findall(line.rest):
                    visit(called, inner)

        visit(self.entry, 1)
        return dict(sent)

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

    def _trips(self, line: Instruction) -> int:
        """How often a loop runs that counts up to a constant; 1 where it cannot be told."""
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
            arrays = tuple(_bytes(*array) for array in _ARRAY.findall(shape))
            computations[current].append(Instruction(name, kind, arrays, rest))
    return Program(computations, entry)


def _bytes(dtype: str, shape: str) -> int:
    bits = _BITS.get(dtype) or int(re.search(r"\d+", dtype)[0])
    size = 1
    for side in filter(None, shape.split(",")):
        size *= int(side)
    return size * bits // 8
