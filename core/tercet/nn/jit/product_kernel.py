"""Products of float32 rows with a weight: y = activation(x Wᵀ + b) + residual.

The weight is read in panels, so many of its rows as a tile is wide, with the numbers of a column side by side. All rows
of x at hand go over a panel, a few at a time, with their sums in registers (Goto & van de Geijn 2008,
doi:10.1145/1356052.1356053). A weight as it is stored, by rows, is turned into panels on the way, block by block into
memory that stays in the first cache. That costs a full batch next to nothing, so a model computes from its mapped file;
a lone query gains by panels that were laid out once.

Each number of y is summed over blocks of `_DEPTH` columns from the first to the last, within each one column after
the other, whichever way the weight lies. It depends on its own row of x alone.
"""

from __future__ import annotations

from typing import NamedTuple

from tercet.nn.jit.code import Code, Kernel, vector_shape
from tercet.nn.jit.values import Int, Memory, Vector

_ROWS = 512  # of x a unit of work
_DEPTH = 128  # columns that are summed, and turned, at once
_TALL, _VECTORS = 6, 2  # rows and vectors of a tile: its sums stay in as few registers as AVX2 has


class ProductWords(NamedTuple):
    """The words of `product_kernel`.

    Attributes:
        x: address of (rows, depth). weight: of (width, depth) or of panels. bias: of (width,).
        residual: of (rows, width), or 0. y: of (rows, width).
        rows, depth, width: the shape; `fits` says which can be. step: numbers from a row of y and residual to the next.
        units: of work. cores: that share them. next: the one that is done next.
    """

    x: int
    weight: int
    bias: int
    residual: int
    y: int
    rows: int
    depth: int
    width: int
    step: int
    units: int
    cores: int
    next: int = 0


class PanelsWords(NamedTuple):
    """The words of `panels_kernel`.

    Attributes:
        weight: address of (width, depth). panels: of what `panels_shape` says. depth, width: the shape.
        units: panels. next: the one that is laid next.
    """

    weight: int
    panels: int
    depth: int
    width: int
    units: int
    next: int = 0


def fits(depth: int, width: int) -> bool:
    """Whether this processor computes in vectors, and a weight has columns for one and rows for a panel."""
    return vector_shape() is not None and depth >= _lanes() and width >= _VECTORS * _lanes()


def panels_shape(depth: int, width: int) -> tuple[int, int, int]:
    """Return how many panels a weight has, and the columns and rows of one.

    The last panel ends where the weight does, and so begins with rows of the one before where the weight fills none.
    """
    return -(-width // (_VECTORS * _lanes())), depth, _VECTORS * _lanes()


def units_of(rows: int, width: int) -> int:
    """Return how many units of work a product is: panels for each block of rows."""
    return -(-rows // _ROWS) * panels_shape(0, width)[0]


def _lanes() -> int:
    shape = vector_shape()
    assert shape is not None
    return shape[0]


@Kernel
def product_kernel(code: Code, activation: str | None, added: bool, laid: bool) -> None:
    """Write the product.

    Args:
        activation: None or "gelu".
        added: whether there is a residual.
        laid: whether the weight lies in panels.
    """
    _Product(code, activation, added, laid).write()


@Kernel
def panels_kernel(code: Code) -> None:
    """Write what lays a weight by rows into panels."""
    word = PanelsWords(*range(len(PanelsWords._fields)))
    depth, wide = code.word(word.depth), _VECTORS * code.lanes
    weight, panels = (Memory(code, code.pointer(at)) for at in (word.weight, word.panels))
    with code.shared_loop(word.next, code.word(word.units)) as unit:
        panel = Memory(code, panels.at(unit * depth * wide))
        _turn(code, weight, panel, _first(unit, code.word(word.width), wide) * depth, depth, depth)


def _first(panel: Int, width: Int, wide: int) -> Int:
    """Return the first row of a panel."""
    return (panel * wide).least(width - wide)


def _turn(code: Code, weight: Memory, panel: Memory, corner: Int, depth: Int, columns: Int) -> None:
    """Panel[column] = weight[row, column] for all rows of a panel, the first of them beginning at `corner`.

    The last columns that fill a vector are turned together, though some of them have been already; with fewer columns
    than that, some before the corner too.
    """
    lanes, wide = code.lanes, _VECTORS * code.lanes
    for at in range(0, wide, lanes):
        places = [corner + depth * (at + lane) for lane in range(lanes)]
        with code.loop(columns, step=lanes) as index:
            column = index.least(columns - lanes)
            for i, turned in enumerate(code.transpose([weight.load(place + column) for place in places])):
                panel.store(turned, (column + i) * wide + at)


class _Product:
    """Writes the code."""

    def __init__(self, code: Code, activation: str | None, added: bool, laid: bool) -> None:
        self.code, self.activation, self.added, self.laid = code, activation, added, laid
        self.word = ProductWords(*range(len(ProductWords._fields)))
        self.x, self.weight, self.bias, self.residual, self.y = (Memory(code, code.pointer(at)) for at in self.word[:5])
        self.rows, self.depth, self.width, self.step = (code.word(at) for at in self.word[5:9])
        self.wide = _VECTORS * code.lanes
        self.columns = range(0, self.wide, code.lanes)
        self.sums = code.scratch(_ROWS * self.wide)
        before = code.lanes * self.wide  # where `_turn` puts columns from before the corner
        self.turned = Memory(code, code.scratch(_DEPTH * self.wide + before).at(before))

    def write(self) -> None:
        """Write a loop over panels and blocks of rows; threads that run it share them out.

        What two panels hold is computed alike and written twice.
        """
        code = self.code
        panels = (self.width + (self.wide - 1)) // self.wide
        with code.shared_loop(self.word.next, code.word(self.word.units)) as unit:
            panel = unit % panels
            first = _first(panel, self.width, self.wide)
            top = unit // panels * _ROWS
            count = (self.rows - top).least(_ROWS)
            with code.loop(self.depth, step=_DEPTH) as start:
                block = _Block(self, panel, first, top, start)
                tall, short = count // _TALL * _TALL, _TALL // 2
                with code.loop(tall.least(_TALL), step=_TALL):
                    block.tile([code.number(i) for i in range(_TALL)], fetch=True)
                with code.loop(tall, start=_TALL, step=_TALL) as row:
                    block.tile([row + i for i in range(_TALL)])
                with code.loop(count, start=tall, step=short) as row:
                    block.tile([(row + i).least(count - 1) for i in range(short)])

    def finish(self, total: Vector, column: Int, place: Int) -> Vector:
        """Return activation(total + bias) + residual."""
        total = total + self.bias.load(column)
        if self.activation == "gelu":
            total = total.gelu()
        return total + self.residual.load(place) if self.added else total


class _Block:
    """So many columns of a panel as are summed at once, and the rows of x that go over them."""

    def __init__(self, product: _Product, panel: Int, first: Int, top: Int, start: Int) -> None:
        code, wide = product.code, product.wide
        self.product, self.first, self.top, self.start = product, first, top, start
        self.columns = (product.depth - start).least(_DEPTH)
        if product.laid:
            self.panel = Memory(code, product.weight.at((panel * product.depth + start) * wide))
        else:
            self.panel = product.turned
            _turn(code, product.weight, self.panel, first * product.depth + start, product.depth, self.columns)

    def tile(self, rows: list[Int], fetch: bool = False) -> None:
        """Add the product over these columns to the sums of a few rows from `top` on; rows may repeat.

        Args:
            fetch: whether what this core reads for the next unit, as a rule, comes near meanwhile.
        """
        product, code, wide = self.product, self.product.code, self.product.wide
        parts = {(row, at): code.variable(code.constant(0.0)) for row in rows for at in product.columns}
        lefts = {row: (self.top + row) * product.depth + self.start for row in rows}
        ahead = (self.first + code.word(product.word.cores) * wide) * product.depth + self.start * wide
        with code.loop(self.columns) as column:
            if fetch:
                for at in product.columns:
                    product.weight.fetch(ahead + column * wide + at)
            weights = {at: self.panel.load(column * wide + at) for at in product.columns}
            for row, left in lefts.items():
                number = product.x.broadcast(left + column)
                for at, weight in weights.items():
                    part = parts[row, at]
                    part.store(code.fma(number, weight, part.load()))
        with code.when(self.start > 0):
            for (row, at), part in parts.items():
                part.store(product.sums.load(row * wide + at) + part.load())
        with code.either(product.depth > self.start + self.columns) as (more, last):
            with more:
                for (row, at), part in parts.items():
                    product.sums.store(part.load(), row * wide + at)
            with last:
                for (row, at), part in parts.items():
                    place = (self.top + row) * product.step + self.first + at
                    product.y.store(product.finish(part.load(), self.first + at, place), place)
