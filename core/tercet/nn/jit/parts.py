"""Parts: a float32 as the sum of three bfloat16, whose products AMX adds up ten times as fast as those of float32.

Each part is what the one before left, rounded to bfloat16's eight bits, and the last leaves nothing: 24 bits are three
times eight. Of the nine products of two numbers' parts the six largest are computed, exactly, and added in float32;
the others together are below 2⁻²³ of the whole, about what float32 rounds off (Henry, Tang & Heinecke 2019,
doi:10.1109/ARITH.2019.00019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from tercet.nn.jit.tiles import COUNT, WORDS, Tiles
from tercet.nn.jit.values import Int, Memory, Vector

PARTS = 3
STEP = 2 * WORDS  # columns whose parts are a row of a tile; a word has those of columns i and i + 16
# Which part of x is multiplied with which of the weight: the smallest products first, one tile or two read anew each.
PRODUCTS = ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0))
_HALF, _UPPER = 1 << 15, 0xFFFF0000
_OR_AND = 0xF8  # VPTERNLOGD's name for a | (b & c)


def parts_of(low: Vector, high: Vector, rounded: bool) -> list[Vector]:
    """Return the words of each part of two vectors, those of `low` in the lower halves.

    Cut off instead of `rounded`, parts cost a quarter less, and are all of the number's sign: the products that are
    left out then add up, unless the other number's parts are rounded.
    """
    words = []
    for part in range(PARTS):
        # The last is what is left, but for numbers near the least that there are, whose bits would be the other's.
        is_rounded = rounded and part < PARTS - 1
        upper, lower = (_shortened(x, is_rounded) for x in (high, low))
        words.append(_both(lower, upper))
        high, low = high - upper, low - lower
    return words


def _shortened(x: Vector, rounded: bool) -> Vector:
    """Return numbers with bfloat16's bits alone, rounded with ties away from zero or cut off."""
    code, b, bits = x.code, x.code.b, _whole(x)
    half, upper = (ir.Constant(code.integers, [number] * code.lanes) for number in (_HALF, _UPPER))
    return Vector(code, b.bitcast(b.and_(b.add(bits, half) if rounded else bits, upper), code.vector))


def _both(low: Vector, high: Vector) -> Vector:
    """Return words of two bfloat16 each, the upper halves of two float32."""
    code, b = low.code, low.code.b
    shift, upper = (ir.Constant(code.integers, [number] * code.lanes) for number in (16, _UPPER))
    # Left to itself, LLVM takes a permutation for it, which is slower beside tiles.
    either = code.function("llvm.x86.avx512.pternlog.d.512", code.integers, *[code.integers] * 3, ir.IntType(32))
    words = b.call(either, [b.lshr(_whole(low), shift), _whole(high), upper, ir.Constant(ir.IntType(32), _OR_AND)])
    return Vector(code, b.bitcast(words, code.vector))


def _whole(x: Vector) -> Any:
    return x.code.b.bitcast(x.value, x.code.integers)


Place = Callable[[int], tuple[Memory, Int]]  # of a tile of a part
EIGHTHS = 8
Besides = Callable[[int], None]  # what is done beside products, after each eighth of them


def multiply_parts(
    tiles: Tiles,
    rows: Sequence[Place],
    columns: Sequence[Place],
    counts: tuple[int, int] = (PARTS, PARTS),
    besides: Besides | None = None,
) -> None:
    """Write the products of a step: those of the i-th tile of rows and the j-th of columns go to tile i · columns + j.

    Args:
        counts: parts that are not zero, of rows and of columns.
    """
    left, right = len(rows) * len(columns), len(rows) * len(columns) + len(rows)  # the first tiles for either
    products = [pair for pair in PRODUCTS if pair[0] < counts[0] and pair[1] < counts[1]]
    done, x_held, held = 0, -1, -1
    for x_part, part in products:
        for i, place in enumerate(rows if x_part != x_held else ()):
            tiles.load(left + i, *place(x_part))
        for j, column in enumerate(columns):
            number = right + j % (COUNT - right)
            if part != held or len(columns) > COUNT - right:
                tiles.load(number, *column(part))
            for i in range(len(rows)):
                tiles.add_product(i * len(columns) + j, left + i, number)
                if besides is not None:
                    for eighth in share(EIGHTHS, done, len(products) * left):
                        besides(eighth)
                done += 1
        x_held, held = x_part, part


def share(work: int, done: int, of: int) -> range:
    """Return what of so much work falls to the next of some products, after so many others."""
    return range(work * done // of, work * (done + 1) // of)
