"""One row for each sequence: the mean of those that count, their sum over √count, or the first."""

from __future__ import annotations

from typing import NamedTuple

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.values import Int, Memory, Vector


class PoolWords(NamedTuple):
    """The words of `pool_kernel`.

    Attributes:
        x: address of (·, width) float32. y: of (units, width).
        spans: of (units, 3) int64, each sequence's first row that counts, how many do, and what is not read.
        width: numbers of a row.
        units, next, done: see `words.Words`; a unit is a sequence.
    """

    x: int
    y: int
    spans: int
    width: int
    units: int
    next: int = 0
    done: int = 0


_POOL = PoolWords(*range(len(PoolWords._fields)))  # where each is


@Kernel
def pool_kernel(code: Code, how: str) -> None:
    """Write the pooling: "mean", "mean_sqrt_len" or "cls"; rows fill vectors. Of no row the sum is zero."""
    x, y = (Memory(code, code.pointer(at)) for at in (_POOL.x, _POOL.y))
    spans, width = code.words(_POOL.spans), code.word(_POOL.width)
    with code.shared_loop(_POOL) as unit:
        start, count = spans(unit * 3), spans(unit * 3 + 1)
        divisor = count.most(1).vector()
        if how == "mean_sqrt_len":
            divisor = code.sqrt(divisor)
        with code.loop(width, step=code.lanes) as at:
            first = start * width + at
            y.store(x.load(first) if how == "cls" else _sum(x, first, count, width) / divisor, unit * width + at)


def _sum(x: Memory, first: Int, count: Int, step: Int) -> Vector:
    """Return the sum of so many vectors, a step apart; what each addition rounds off is carried to the next (Kahan)."""
    code = x.code
    total, lost = (code.variable(code.constant(0.0)) for _ in range(2))
    with code.loop(count) as row:
        part = x.load(first + row * step) - lost.load()
        more = total.load() + part
        lost.store((more - total.load()) - part)
        total.store(more)
    return total.load()
