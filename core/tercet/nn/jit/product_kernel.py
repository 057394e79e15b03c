"""Products of rows with a weight: y = activation(x Wᵀ + b) + residual, in float32 or in pairs of int16.

The weight is read in panels, so many of its rows as a tile is wide, with the numbers of a column side by side. All rows
of x at hand go over a panel, a few at a time, with their sums in registers (Goto & van de Geijn 2008,
doi:10.1145/1356052.1356053). A weight as it is stored, by rows, is turned into panels on the way, block by block into
memory that stays in the first cache. That costs a full batch next to nothing, so a model computes from its mapped file;
a lone query gains by panels that were laid out once.

Each number of y is summed over blocks of `DEPTH` columns from the first to the last, within each one column after
the other, whichever way the weight lies. It depends on its own row of x alone.

Pairs (`pairs.py`) stand for two columns each where float32 stand for one. A block's sum of them is exact, must fit an
int32, and is a float32 from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

from tercet.nn.jit.code import Code, Kernel, vector_shape
from tercet.nn.jit.pairs import add_product, whole_number
from tercet.nn.jit.panel_block import DEPTH, Block, Fetched, turn
from tercet.nn.jit.values import Int, Memory, Vector

_LINE = 16  # numbers in a line of the cache
_WASTE = 0.05  # of a product that may be computed twice for the sake of wider panels


class ProductWords(NamedTuple):
    """The words of `product_kernel`.

    Attributes:
        x: address of (rows, depth) numbers or pairs. weight: of (width, depth) or of panels. bias: of (width,).
        residual: of (rows, width), or 0. y: of (rows, width).
        rows, depth, width: the shape; `fits` says which can be. step: numbers from a row of y and residual to the next.
        gelu: 1 if GELU follows, else 0. panels: of the weight. cores: that share the work.
        steps, scales: of pairs, addresses of (rows,) and of (width,) float32: what a one of x and of the weight is.
        units, next, done: see `words.Words`.
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
    gelu: int
    panels: int
    cores: int
    steps: int
    scales: int
    units: int
    next: int = 0
    done: int = 0

    @classmethod
    def of(cls, vectors: int, rows: int, depth: int, width: int, **others: int) -> Self:
        """Return the words for a product of this shape, whose panels are so many vectors wide."""
        panels = panels_shape(depth, width, vectors)[0]
        units = panels * cls.blocks_of(rows)
        return cls(rows=rows, depth=depth, width=width, panels=panels, units=units, **others)

    @staticmethod
    def blocks_of(rows: int) -> int:
        """Return in how many blocks rows of x are multiplied."""
        return blocks_of(rows)


_PRODUCT = ProductWords(*range(len(ProductWords._fields)))  # where each is


class PanelsWords(NamedTuple):
    """The words of `panels_kernel`.

    Attributes:
        weight: address of (width, depth). panels: of what `panels_shape` says. depth, width: the shape.
        units, next, done: see `words.Words`; a unit is a panel.
    """

    weight: int
    panels: int
    depth: int
    width: int
    units: int
    next: int = 0
    done: int = 0


def fits(depth: int, width: int) -> bool:
    """Whether this processor computes in vectors, and a weight has columns for one and rows for a panel."""
    shape = vector_shape()
    return shape is not None and depth >= shape[0] and width >= 2 * shape[0]


def blocks_of(rows: int) -> int:
    """Return in how many blocks rows of x are multiplied."""
    return -(-rows // block_rows())


def block_rows() -> int:
    """Return how many rows of x a unit of work has.

    Processors with AVX2 alone have second caches in which few stay until the next panel.
    """
    return 512 if _shape()[1] >= 32 else 96


def vectors_of(width: int) -> int:
    """Return how many vectors wide the panels of a weight with so many rows are.

    Three need fewer loads for a sum than two, and more registers than AVX2 has.
    """
    lanes, registers = _shape()
    computed = -(-width // (3 * lanes)) * 3 * lanes
    return 3 if registers >= 32 and 3 * lanes <= width and computed <= width * (1 + _WASTE) else 2


def panels_shape(depth: int, width: int, vectors: int) -> tuple[int, int, int]:
    """Return how many panels a weight has that are so many vectors wide, and the columns and rows of one.

    The last panel ends where the weight does, and so begins with rows of the one before where the weight fills none.
    """
    wide = vectors * _shape()[0]
    return -(-width // wide), depth, wide


def _shape() -> tuple[int, int]:
    shape = vector_shape()
    assert shape is not None
    return shape


@Kernel
def product_kernel(code: Code, laid: bool, vectors: int, pairs: bool) -> None:
    """Write the product.

    Args:
        laid: whether the weight lies in panels.
        vectors: what `vectors_of` says of the weight.
        pairs: whether x and the weight are made of pairs.
    """
    Product(code, laid, vectors, pairs).write()


@Kernel
def panels_kernel(code: Code, vectors: int) -> None:
    """Write what lays a weight by rows into panels so many vectors wide."""
    word = PanelsWords(*range(len(PanelsWords._fields)))
    depth, wide = code.word(word.depth), vectors * code.lanes
    weight, panels = (Memory(code, code.pointer(at)) for at in (word.weight, word.panels))
    with code.shared_loop(word) as unit:
        panel = Memory(code, panels.at(unit * depth * wide))
        turn(code, weight, panel, first_row(unit, code.word(word.width), wide) * depth, depth, depth, wide)


def first_row(panel: Int, width: Int, wide: int) -> Int:
    """Return the first row of a panel."""
    return (panel * wide).least(width - wide)


class Product:
    """Writes the code."""

    def __init__(self, code: Code, laid: bool, vectors: int, pairs: bool) -> None:
        self.code, self.laid, self.pairs = code, laid, pairs
        self.word = _PRODUCT
        self.x, self.weight, self.bias, self.residual, self.y = (Memory(code, code.pointer(at)) for at in self.word[:5])
        self.steps, self.scales = (Memory(code, code.pointer(at)) for at in (self.word.steps, self.word.scales))
        self.rows, self.depth, self.width, self.step = (code.word(at) for at in self.word[5:9])
        self.gelu, self.added = code.word(self.word.gelu) > 0, code.word(self.word.residual) > 0
        self.multiply_add: Callable[[Vector, Vector, Vector], Vector] = add_product if pairs else code.fma
        self.number: Callable[[Vector], Vector] = whole_number if pairs else _as_it_is
        self.wide = vectors * code.lanes
        # A tile's sums stay in registers.
        self.tall, self.short = ((24 // vectors), 4) if code.registers >= 32 else (12 // vectors, 3)
        self.columns = range(0, self.wide, code.lanes)
        self.lines = range(0, self.wide, _LINE)  # of the cache, of a column
        self.high = code.number(block_rows())  # rows of a block
        self.sums = code.scratch(block_rows() * self.wide)
        before = code.lanes * self.wide  # where `turn` puts columns from before the corner
        self.turned = Memory(code, code.scratch(DEPTH * self.wide + before).at(before))

    def write(self) -> None:
        """Write a loop over panels and blocks of rows; threads that run it share them out.

        What two panels hold is computed alike and written twice.
        """
        panels = self.code.word(self.word.panels)
        with self.code.shared_loop(self.word) as unit:
            panel = unit % panels
            top = unit // panels * self.high
            count = (self.rows - top).least(self.high)
            self.unit(panel, first_row(panel, self.width, self.wide), top, count)

    def unit(self, panel: Int, first: Int, top: Int, count: Int) -> None:
        """Write the product of some rows, from `top` on, with a panel, whose rows of the weight begin with `first`."""
        code = self.code
        with code.loop(self.depth, step=DEPTH) as start:
            block = Block(self, panel, first, top, start)
            if code.registers >= 32:
                self._tall_and_short(block, count)
            else:
                self._even(block, count)
        self.finish(top, first, code.number(0), count, self.sums)

    def _tall_and_short(self, block: Block, count: Int) -> None:
        """Write tiles that are as tall as can be, and short ones for what is left."""
        code = self.code
        at_first, later = (partial(block.lines, self.lines[part]) for part in (slice(-1), slice(-1, None)))
        at_once = partial(block.lines, self.lines)
        tall = count // self.tall * self.tall
        first_rows = [code.number(i) for i in range(self.tall)]
        with code.either(count > self.tall) as (several, alone):
            with several:
                block.tile(first_rows, at_first)
            with alone, code.loop(tall.least(1)):
                block.tile(first_rows, at_once)
        with code.loop(tall, start=self.tall, step=self.tall) as row:
            block.tile([row + i for i in range(self.tall)], later)
        few = (code.number(self.short) - tall).most(0)  # rows of a short tile, where it is the first
        with code.loop(few.least(1)):
            block.tile([code.number(i).least(count - 1) for i in range(self.short)], at_once)
        with code.loop(count, start=tall + few, step=self.short) as row:
            block.tile([(row + i).least(count - 1) for i in range(self.short)], later)

    def _even(self, block: Block, count: Int) -> None:
        """Write as few tiles as can be, of near-equal height: one of a row takes as long as one of four."""
        code = self.code
        tiles = (count + self.tall - 1) // self.tall
        least, taller = count // tiles, count % tiles
        with code.loop(tiles) as tile:
            row, rows = tile * least + tile.least(taller), least + (taller - tile).most(0).least(1)
            fetch = partial(block.share, tile, (tiles - 1).least(1))
            with code.either(tile > 1) as (late, early):
                with late:
                    self._of_height(self.tall, block, row, rows)
                with early:
                    self._of_height(self.tall, block, row, rows, fetch)

    def _of_height(self, height: int, block: Block, row: Int, rows: Int, fetch: Fetched | None = None) -> None:
        """Write a tile of so many rows from one on, or lower ones if they are fewer; the last repeats what it lacks."""
        if height == self.short:
            block.tile([row + self.code.number(i).least(rows - 1) for i in range(height)], fetch)
            return
        with self.code.either(rows > height - 1) as (all_, fewer):
            with all_:
                block.tile([row + i for i in range(height)], fetch)
            with fewer:
                self._of_height(height - 1, block, row, rows, fetch)

    def finish(self, top: Int, first: Int, start: Int, stop: Int, sums: Memory) -> None:
        """Write activation(sums + bias) + residual of some rows of a unit.

        Of pairs, what stands for sums is those times the sizes of their ones.
        """
        with self.code.loop(stop, start=start) as row:
            for at in self.columns:
                self.finish_vector(top, first, row, at, sums)

    def finish_vector(self, top: Int, first: Int, row: Int, at: int | Int, sums: Memory) -> None:
        """Write the same of a vector of a row alone, from column `at` of the panel on."""
        code, place = self.code, (top + row) * self.step + first + at
        total = code.variable(self._scaled(top + row, first + at, sums.load(row * self.wide + at)))
        with code.when(self.gelu):
            total.store(total.load().gelu())
        with code.when(self.added):
            total.store(total.load() + self.residual.load(place))
        self.y.store(total.load(), place)

    def _scaled(self, row: Int, column: Int, total: Vector) -> Vector:
        bias = self.bias.load(column)
        if not self.pairs:
            return total + bias
        return self.code.fma(total, self.steps.broadcast(row) * self.scales.load(column), bias)


def _as_it_is(total: Vector) -> Vector:
    return total
