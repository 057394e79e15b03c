"""What a product in int8 does to its rows, before and after, in one pass each.

A row x is rounded to 256 steps of its own from its least number on: x ≈ low + step · u with u in 0 … 255. Then
x · w = step · (u · w) + low · Σ w for each row w of the weights, of which only u · w needs a product.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tercet.nn.jit.code import Code
from tercet.nn.jit.values import ByteMemory, Memory

_ROWS = 8  # of a unit of work
_LEAST_STEP = 1e-30  # of a row whose numbers are all the same


class RoundingWords(NamedTuple):
    """The words of `rounding`.

    Attributes:
        x: address of (rows, width) float32. steps: of (rows, 2) float32, where each row's step and low are written.
        out: of (rows, width) uint8. rows, width: the shape. units: of work. next: the one that is done next.
    """

    x: int
    steps: int
    out: int
    rows: int
    width: int
    units: int
    next: int = 0


class FinishingWords(NamedTuple):
    """The words of `finishing`.

    Attributes:
        y: address of (rows, width) float32, u · w, overwritten. steps: what `rounding` wrote.
        sums, bias: of (width,) float32, Σ w and what is added. residual: of (rows, width) float32, or 0.
        rows, width: the shape. units: of work. next: the one that is done next.
    """

    y: int
    steps: int
    sums: int
    bias: int
    residual: int
    rows: int
    width: int
    units: int
    next: int = 0


def units_of(rows: int) -> int:
    """Return how many units of work so many rows are."""
    return -(-rows // _ROWS)


def write_rounding(code: Code) -> None:
    """Write the rounding of rows. A row with a number that is not finite gets a step that is none."""
    word = RoundingWords(*range(len(RoundingWords._fields)))
    x, steps, out = Memory(code, code.pointer(word.x)), Memory(code, code.pointer(word.steps)), code.pointer(word.out)
    rows, width, lanes, zero = code.word(word.rows), code.word(word.width), code.lanes, code.constant(0.0)
    with code.shared_loop(word.next, code.word(word.units)) as unit, code.loop((rows - unit * _ROWS).least(_ROWS)) as i:
        row = unit * _ROWS + i
        low, high = code.variable(code.constant(math.inf)), code.variable(code.constant(-math.inf))
        unsound = code.variable(zero)
        with code.loop(width, step=lanes) as at:
            numbers = x.load(row * width + at)
            low.store(-(-numbers).at_least(-low.load()))
            high.store(numbers.at_least(high.load()))
            unsound.store(code.fma(numbers, zero, unsound.load()))
        least = -(-low.load()).across(lambda a, b: a.at_least(b))
        step = (high.load().across(lambda a, b: a.at_least(b)) - least) * code.constant(1 / 255)
        step = step.at_least(code.constant(_LEAST_STEP)) + unsound.load().across(lambda a, b: a + b)
        inverse = code.constant(1.0) / step
        with code.loop(width, step=lanes) as at:
            ByteMemory(code, out).store((x.load(row * width + at) - least) * inverse, row * width + at)
        steps.put(step, row * 2)
        steps.put(least, row * 2 + 1)


def write_finishing(code: Code, activation: str | None, added: bool) -> None:
    """Write y ← activation(step · y + low · sums + bias) + residual; `added` says whether there is a residual."""
    word = FinishingWords(*range(len(FinishingWords._fields)))
    y, steps, sums, bias, residual = (
        Memory(code, code.pointer(at)) for at in (word.y, word.steps, word.sums, word.bias, word.residual)
    )
    rows, width = code.word(word.rows), code.word(word.width)
    with code.shared_loop(word.next, code.word(word.units)) as unit, code.loop((rows - unit * _ROWS).least(_ROWS)) as i:
        row = unit * _ROWS + i
        step, low = steps.broadcast(row * 2), steps.broadcast(row * 2 + 1)
        with code.loop(width, step=code.lanes) as at:
            place = row * width + at
            result = code.fma(y.load(place), step, code.fma(low, sums.load(at), bias.load(at)))
            if activation == "gelu":
                result = result.gelu()
            y.store(result + residual.load(place) if added else result, place)
