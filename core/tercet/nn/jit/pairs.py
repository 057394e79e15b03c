"""Pairs: two int16 in the place of a float32, whose products with another pair are added in one step.

A processor with AVX2 alone has no fast product of int8; with this one it does twice as many multiplications at once as
in float32. A sum is an int32, in the place of a float32 too, so that code for float32 moves them all.
"""

from __future__ import annotations

from typing import NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir

from tercet.nn.jit.code import Code, Kernel, vector_shape
from tercet.nn.jit.panel_block import DEPTH
from tercet.nn.jit.rows import each_row
from tercet.nn.jit.values import Memory, ShortMemory, Vector

LARGEST = 8_191  # that a row of x is rounded to; of powers of two the one that costs a model's vectors least
_BLOCK = 2 * DEPTH  # columns whose products are one sum
# Of a row's weights in a block, so that their sum with that fits: each may be rounded up by half a one, and what is
# summed here is off by less than eight.
_HEAVIEST = (2**31 - 1) // LARGEST - _BLOCK // 2 - 8
_LARGEST_WEIGHT = 2**15 - 1
_LEAST_STEP = 1e-30  # of a row of zeros
_SHORT = ir.IntType(16)
_MULTIPLY = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
_FEATURES = {8: "avx2", 16: "avx512bw"}


def has_pairs() -> bool:
    """Whether this processor multiplies them, in vectors as long as those of float32."""
    shape = vector_shape()
    feature = _FEATURES.get(shape[0]) if shape else None
    return feature is not None and llvm.get_host_cpu_features().get(feature, False)


def add_product(x: Vector, weight: Vector, total: Vector) -> Vector:
    """Return each lane's sum with the products of its pairs added."""
    code, b = x.code, x.code.b
    pairs = ir.VectorType(_SHORT, 2 * code.lanes)
    multiply = code.function(_MULTIPLY[code.lanes], code.integers, pairs, pairs)
    product = b.call(multiply, [b.bitcast(x.value, pairs), b.bitcast(weight.value, pairs)])
    return Vector(code, b.bitcast(b.add(product, b.bitcast(total.value, code.integers)), code.vector))


def whole_number(total: Vector) -> Vector:
    """Return sums as float32."""
    code = total.code
    return Vector(code, code.b.sitofp(code.b.bitcast(total.value, code.integers), code.vector))


class PairingWords(NamedTuple):
    """The words of `pairing_kernel`.

    Attributes:
        x: address of (rows, width) float32. y: of (rows, width) int16. steps: of (rows,) float32.
        rows, width: the shape. units, next, done: see `words.Words`.
    """

    x: int
    y: int
    steps: int
    rows: int
    width: int
    units: int
    next: int = 0
    done: int = 0


_WORD = PairingWords(*range(len(PairingWords._fields)))  # where each is


@Kernel
def pairing_kernel(code: Code, weight: bool) -> None:
    """Write rows in whole steps of their own, and the steps.

    A row with a number that is not finite gets a step that is none.

    Args:
        weight: whether steps are as a weight's rows need them: so small that the sums of a product fit just so, when x
            is a row whose numbers all are `LARGEST`. Otherwise the largest number of a row is that.
    """
    x, y, steps = (
        kind(code, code.pointer(at)) for kind, at in ((Memory, _WORD.x), (ShortMemory, _WORD.y), (Memory, _WORD.steps))
    )
    width, lanes = code.word(_WORD.width), code.lanes
    with each_row(code, _WORD) as row:
        largest, heaviest, unsound = (code.variable(code.constant(0.0)) for _ in range(3))
        with code.loop(width, step=_BLOCK) as block:
            block_sum = code.variable(code.constant(0.0))
            with code.loop((block + _BLOCK).least(width), start=block, step=lanes) as at:
                numbers = x.load(row * width + at)
                size = numbers.at_least(-numbers)
                largest.store(largest.load().at_least(size))
                unsound.store(code.fma(numbers, code.constant(0.0), unsound.load()))
                block_sum.store(block_sum.load() + size)
            if weight:
                heaviest.store(heaviest.load().at_least(block_sum.load().across(_sum)))
        step = largest.load().across(Vector.at_least) * code.constant(1 / (_LARGEST_WEIGHT if weight else LARGEST))
        step = step.at_least(heaviest.load() * code.constant(1 / _HEAVIEST)).at_least(code.constant(_LEAST_STEP))
        step = step + unsound.load().across(_sum)
        inverse = code.constant(1.0) / step
        with code.loop(width, step=lanes) as at:
            y.store(x.load(row * width + at) * inverse, row * width + at)
        steps.put(step, row)


def _sum(one: Vector, other: Vector) -> Vector:
    return one + other
