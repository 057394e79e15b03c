"""What is done to each token's row by itself: looking it up in tables, and norms."""

from __future__ import annotations

from typing import NamedTuple

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.rows import each_row
from tercet.nn.jit.values import Int, Memory, Vector
from tercet.nn.jit.words import Lookups


class NormWords(NamedTuple):
    """The words of `layer_norm_kernel`.

    Attributes:
        x, y: addresses of (rows, width) float32; they may be one. weight, bias: of (width,); bias 0 for none.
        rows, width: the shape. share, eps: the bits of float32, of 1 / width and of what is added to the variance.
        units, next, done: see `words.Words`.
    """

    x: int
    y: int
    weight: int
    bias: int
    rows: int
    width: int
    share: int
    eps: int
    units: int
    next: int = 0
    done: int = 0


class RmsWords(NamedTuple):
    """The words of `rms_norm_kernel`.

    Attributes:
        x: address of rows of (heads, width) float32, `step` numbers apart. y: of (rows, heads, width).
        weight: of (width,). rows, heads, width: the shape.
        share, eps, offset: the bits of float32, of 1 / width, of what is added to the mean square and to the weight.
        units, next, done: see `words.Words`.
    """

    x: int
    y: int
    weight: int
    rows: int
    step: int
    heads: int
    width: int
    share: int
    eps: int
    offset: int
    units: int
    next: int = 0
    done: int = 0


class UnitWords(NamedTuple):
    """The words of `unit_kernel`.

    Attributes:
        x, y: addresses of (rows, width) float32; they may be one. rows, width: the shape.
        least: the bits of a float32, the least length that a row is taken to have.
        units, next, done: see `words.Words`.
    """

    x: int
    y: int
    rows: int
    width: int
    least: int
    units: int
    next: int = 0
    done: int = 0


class EmbedWords(NamedTuple):
    """The words of `embed_kernel`.

    Attributes:
        ids: address of (rows,) int64. table: of (·, width) float32, or 0. y: of (rows, width).
        positions, position_table: as ids and table; a token's place in its text, and the table from the row of the
            first place on.
        kinds, kind_table: the same for token types. kinds_step: 1, or 0 where one number serves every row.
        rows, width: the shape. words, places, types: rows of the tables.
        units, next, done: see `words.Words`.
    """

    ids: int
    table: int
    y: int
    positions: int
    position_table: int
    kinds: int
    kind_table: int
    kinds_step: int
    rows: int
    width: int
    words: int
    places: int
    types: int
    units: int
    next: int = 0
    done: int = 0

    def check(self, asked: Lookups) -> None:
        """Raise IndexError if a batch asks for a row that a table lacks: the kernel would read whatever lies there."""
        most = {"token id": asked.largest_id, "position": asked.largest_position, "token type": asked.largest_kind}
        for (what, largest), rows in zip(most.items(), (self.words, self.places, self.types), strict=True):
            if rows and not 0 <= largest < rows:
                raise IndexError(f"{what} {largest} is not in its table of {rows} rows")


_NORM = NormWords(*range(len(NormWords._fields)))  # where each is
_RMS = RmsWords(*range(len(RmsWords._fields)))
_UNIT = UnitWords(*range(len(UnitWords._fields)))
_EMBED = EmbedWords(*range(len(EmbedWords._fields)))


@Kernel
def layer_norm_kernel(code: Code, shifts: bool) -> None:
    """Write (x − mean) / √(variance + eps) · weight, plus the bias if it `shifts`; rows fill vectors."""
    x, y, weight, bias = (Memory(code, code.pointer(at)) for at in _NORM[:4])
    width, share, eps = code.word(_NORM.width), code.scalar(_NORM.share), code.scalar(_NORM.eps)
    with each_row(code, _NORM) as row:
        start, total, spread = row * width, *(code.variable(code.constant(0.0)) for _ in range(2))
        with code.loop(width, step=code.lanes) as at:
            total.store(total.load() + x.load(start + at))
        mean = total.load().across(Vector.__add__) * share
        with code.loop(width, step=code.lanes) as at:
            off = x.load(start + at) - mean
            spread.store(code.fma(off, off, spread.load()))
        inverse = code.constant(1.0) / code.sqrt(spread.load().across(Vector.__add__) * share + eps)
        with code.loop(width, step=code.lanes) as at:
            scaled = (x.load(start + at) - mean) * inverse
            out = code.fma(scaled, weight.load(at), bias.load(at)) if shifts else scaled * weight.load(at)
            y.store(out, start + at)


@Kernel
def rms_norm_kernel(code: Code) -> None:
    """Write x / √(mean square + eps) · (weight + offset); heads fill vectors."""
    x, y, weight = (Memory(code, code.pointer(at)) for at in _RMS[:3])
    step, heads, width = (code.word(at) for at in _RMS[4:7])
    share, eps, offset = (code.scalar(at) for at in _RMS[7:10])
    with each_row(code, _RMS) as row, code.loop(heads) as head:
        source, target = row * step + head * width, (row * heads + head) * width
        inverse = code.constant(1.0) / code.sqrt(_square(x, source, width) * share + eps)
        with code.loop(width, step=code.lanes) as at:
            y.store(x.load(source + at) * inverse * (weight.load(at) + offset), target + at)


def _square(x: Memory, start: Int, width: Int) -> Vector:
    """Return the sum of a row's squares in every lane."""
    code = x.code
    squares = code.variable(code.constant(0.0))
    with code.loop(width, step=code.lanes) as at:
        number = x.load(start + at)
        squares.store(code.fma(number, number, squares.load()))
    return squares.load().across(Vector.__add__)


@Kernel
def unit_kernel(code: Code) -> None:
    """Write x / its length; rows fill vectors."""
    x, y = (Memory(code, code.pointer(at)) for at in _UNIT[:2])
    width, least = code.word(_UNIT.width), code.scalar(_UNIT.least)
    with each_row(code, _UNIT) as row:
        start = row * width
        share = code.constant(1.0) / code.sqrt(_square(x, start, width)).at_least(least)
        with code.loop(width, step=code.lanes) as at:
            y.store(x.load(start + at) * share, start + at)


@Kernel
def embed_kernel(code: Code, worded: bool, placed: bool, typed: bool) -> None:
    """Write the sum of the rows that each token has in the tables of words, positions and types that are asked for."""
    table, y, position_table, kind_table = (
        Memory(code, code.pointer(at)) for at in (_EMBED.table, _EMBED.y, _EMBED.position_table, _EMBED.kind_table)
    )
    ids, positions, kinds = (code.words(at) for at in (_EMBED.ids, _EMBED.positions, _EMBED.kinds))
    width, kinds_step = code.word(_EMBED.width), code.word(_EMBED.kinds_step)
    with each_row(code, _EMBED) as row:
        parts = [(table, ids(row) * width)] if worded else []
        if placed:
            parts.append((position_table, positions(row) * width))
        if typed:
            parts.append((kind_table, kinds(row * kinds_step) * width))
        with code.loop(width, step=code.lanes) as at:
            first, *others = (memory.load(start + at) for memory, start in parts)
            y.store(sum(others, first), row * width + at)
