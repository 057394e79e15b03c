"""What layers do to each token's row besides norms: rotations by its position, and gates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.rows import each_row
from tercet.nn.jit.values import Memory, Vector

_LARGEST_POWER = 126.0  # of 2 that `Vector.exp2` computes


class RotateWords(NamedTuple):
    """The words of `rotate_kernel`.

    Attributes:
        x: address of rows of (heads, width) float32, `step` numbers apart. y: of (rows, heads, width).
        cos, sin: of (rows, turned), whose halves are alike.
        rows, heads, width: the shape. turned: of the width, what is rotated.
        units, next, done: see `words.Words`.
    """

    x: int
    y: int
    cos: int
    sin: int
    rows: int
    step: int
    heads: int
    width: int
    turned: int
    units: int
    next: int = 0
    done: int = 0


class GateWords(NamedTuple):
    """The words of `gate_kernel`.

    Attributes:
        gate, up: addresses of rows of (width,) float32, twice as many numbers apart. y: of (rows, width).
        rows, width: the shape. units, next, done: see `words.Words`.
    """

    gate: int
    up: int
    y: int
    rows: int
    width: int
    units: int
    next: int = 0
    done: int = 0


_ROTATE = RotateWords(*range(len(RotateWords._fields)))  # where each is
_GATE = GateWords(*range(len(GateWords._fields)))


@Kernel
def rotate_kernel(code: Code) -> None:
    """Write left · cos − right · sin and right · cos + left · sin for the halves that turn, and the rest as it is."""
    x, y, cos, sin = (Memory(code, code.pointer(at)) for at in _ROTATE[:4])
    step, heads, width, turned = (code.word(at) for at in _ROTATE[5:9])
    half = turned // 2
    with each_row(code, _ROTATE) as row, code.loop(heads) as head:
        source, target = row * step + head * width, (row * heads + head) * width
        with code.loop(half, step=code.lanes) as at:
            left, right = x.load(source + at), x.load(source + half + at)
            along, across = cos.load(row * turned + at), sin.load(row * turned + at)
            y.store(left * along - right * across, target + at)
            y.store(right * along + left * across, target + half + at)
        with code.loop(width, start=turned, step=code.lanes) as at:
            y.store(x.load(source + at), target + at)


def _silu(x: Vector) -> Vector:
    """Return x / (1 + e⁻ˣ)."""
    code = x.code
    power = (x * code.constant(-math.log2(math.e))).at_most(code.constant(_LARGEST_POWER))
    return x / (code.constant(1.0) + power.exp2())


GATES: dict[str | None, Callable[[Vector], Vector]] = {"gelu": Vector.gelu, "silu": _silu}


@Kernel
def gate_kernel(code: Code, activation: str) -> None:
    """Write activation(gate) · up."""
    gate, up, y = (Memory(code, code.pointer(at)) for at in _GATE[:3])
    width = code.word(_GATE.width)
    with each_row(code, _GATE) as row, code.loop(width, step=code.lanes) as at:
        place = row * 2 * width + at
        y.store(GATES[activation](gate.load(place)) * up.load(place), row * width + at)
