"""What a product in int8 does to its rows, before and after, in one pass each.

A row x is rounded to 256 steps of its own between its second least and its second greatest number: x ≈ low + step · u
with u in 0 … 255. How far the least and the greatest lie outside is kept beside, since one number far from the others,
which transformers often have, would make the steps coarse for all (Dettmers et al. 2022, arXiv:2208.07339). Then
x · w = step · (u · w) + low · Σ w + the two excesses times their weights, and only u · w needs a product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.rows import each_row
from tercet.nn.jit.values import ByteMemory, Int, Memory, Vector

ROW = 6  # numbers that are kept of a row: step, low, the excess above and below, the place of each
_LEAST_STEP = 1e-30  # of a row whose numbers are all the same
_Choice = Callable[[Vector, Vector], Vector]


class RoundingWords(NamedTuple):
    """The words of `rounding`.

    Attributes:
        x: address of (rows, width) float32. steps: of (rows, `ROW`) float32, what is kept of each row.
        out: of (rows, width) uint8. rows, width: the shape. units, next, done: see `words.Words`.
    """

    x: int
    steps: int
    out: int
    rows: int
    width: int
    units: int
    next: int = 0
    done: int = 0


class FinishingWords(NamedTuple):
    """The words of `finishing`.

    Attributes:
        y: address of (rows, width) float32, u · w, overwritten. steps: what `rounding` wrote.
        columns: of (numbers of a row of x, width) int8, the weights by column. scales: of (width,) float32, theirs.
        sums, bias: of (width,) float32, Σ w and what is added. residual: of (rows, width) float32, or 0.
        rows, width: the shape. units, next, done: see `words.Words`.
    """

    y: int
    steps: int
    columns: int
    scales: int
    sums: int
    bias: int
    residual: int
    rows: int
    width: int
    units: int
    next: int = 0
    done: int = 0


class ByteProductWords(NamedTuple):
    """The words of `byte_product.byte_product_kernel`.

    Attributes:
        x: address of what `rounding` wrote, and memory to the end of a tile of 16 rows. weight: of tiles, as
            `byte_product` has them. y: of (rows, width) float32. panels: of the weight.
        steps, columns, scales, sums, bias, residual, rows, width: as in `FinishingWords`. depth: numbers of a row of x.
        units, next, done: see `words.Words`.
    """

    x: int
    weight: int
    y: int
    steps: int
    columns: int
    scales: int
    sums: int
    bias: int
    residual: int
    rows: int
    depth: int
    width: int
    panels: int
    units: int
    next: int = 0
    done: int = 0


@Kernel
def rounding(code: Code) -> None:
    """Write the rounding of rows. A row with a number that is not finite gets a step that is none."""
    word = RoundingWords(*range(len(RoundingWords._fields)))
    x, steps, out = (
        kind(code, code.pointer(at)) for kind, at in ((Memory, word.x), (Memory, word.steps), (ByteMemory, word.out))
    )
    width, lanes = code.word(word.width), code.lanes
    with each_row(code, word) as row:
        above, below = _Two(code, Vector.at_least, Vector.at_most), _Two(code, Vector.at_most, Vector.at_least)
        unsound = code.variable(code.constant(0.0))
        with code.loop(width, step=lanes) as at:
            numbers = x.load(row * width + at)
            above.take(numbers)
            below.take(numbers)
            unsound.store(code.fma(numbers, code.constant(0.0), unsound.load()))
        (highest, high), (lowest, low) = above.across(), below.across()
        step = ((high - low) * code.constant(1 / 255)).at_least(code.constant(_LEAST_STEP))
        step = step + unsound.load().across(lambda a, b: a + b)
        inverse, here = code.constant(1.0) / step, code.variable(code.count())
        highest_at, lowest_at = (code.variable(code.constant(0.0)) for _ in range(2))
        with code.loop(width, step=lanes) as at:
            numbers, place = x.load(row * width + at), here.load()
            for extreme, found in ((highest, highest_at), (lowest, lowest_at)):
                found.store(place.where(numbers.equals(extreme), found.load()))
            out.store((numbers.at_least(low).at_most(high) - low) * inverse, row * width + at)
            here.store(place + code.constant(float(lanes)))
        places = (found.load().across(Vector.at_least) for found in (highest_at, lowest_at))
        for offset, number in enumerate((step, low, highest - high, lowest - low, *places)):
            steps.put(number, row * ROW + offset)


class _Two:
    """The two numbers that went by and are the furthest in one direction: the greatest, or the least.

    `further` and `nearer` return of two numbers the one that is further in that direction, and the one that is less so.
    """

    def __init__(self, code: Code, further: _Choice, nearer: _Choice) -> None:
        self.further, self.nearer = further, nearer
        none = code.constant(-math.inf if further is Vector.at_least else math.inf)
        self.first, self.second = code.variable(none), code.variable(none)

    def take(self, numbers: Vector) -> None:
        """Let each lane's number go by."""
        first = self.first.load()
        self.second.store(self.further(self.nearer(numbers, first), self.second.load()))
        self.first.store(self.further(numbers, first))

    def across(self) -> tuple[Vector, Vector]:
        """Return the two of all lanes, in each lane."""
        first, second = self.first.load(), self.second.load()
        for distance in first.distances():
            other, another = first.partner(distance), second.partner(distance)
            second = self.further(self.nearer(first, other), self.further(second, another))
            first = self.further(first, other)
        return first, second


@dataclass(frozen=True)
class Finish:
    """Writes what turns u · w of a row of x and a weight into x · w + bias.

    Attributes:
        steps: what `rounding` wrote. columns, scales, sums, bias: as in `FinishingWords`. width: of a row of y.
    """

    code: Code
    steps: Memory
    columns: ByteMemory
    scales: Memory
    sums: Memory
    bias: Memory
    width: Int

    def row(self, row: Int) -> Callable[[Vector, Int], Vector]:
        """Return what takes u · w times the weight's scales, and the column that it begins with."""
        code, width = self.code, self.width
        step, low, above, below = (self.steps.broadcast(row * ROW + at) for at in range(4))
        above_at, below_at = (self.steps.whole(row * ROW + at) for at in (4, 5))

        def finish(product: Vector, at: Int) -> Vector:
            outside = above * self.columns.load(above_at * width + at)
            outside = code.fma(below, self.columns.load(below_at * width + at), outside)
            rest = code.fma(low, self.sums.load(at), code.fma(outside, self.scales.load(at), self.bias.load(at)))
            return code.fma(product, step, rest)

        return finish


@Kernel
def finishing(code: Code, activation: str | None, added: bool) -> None:
    """Write y ← activation(step · y + low · sums + excesses + bias) + residual, `added` if there is a residual."""
    word = FinishingWords(*range(len(FinishingWords._fields)))
    y, residual = Memory(code, code.pointer(word.y)), Memory(code, code.pointer(word.residual))
    finish, width = finish_of(code, word), code.word(word.width)
    with each_row(code, word) as row:
        finished = finish.row(row)
        with code.loop(width, step=code.lanes) as at:
            place = row * width + at
            result = finished(y.load(place), at)
            if activation == "gelu":
                result = result.gelu()
            y.store(result + residual.load(place) if added else result, place)


def finish_of(code: Code, word: FinishingWords | ByteProductWords) -> Finish:
    """Return what finishes products, whose words are these."""
    steps, scales, sums, bias = (
        Memory(code, code.pointer(at)) for at in (word.steps, word.scales, word.sums, word.bias)
    )
    return Finish(code, steps, ByteMemory(code, code.pointer(word.columns)), scales, sums, bias, code.word(word.width))
