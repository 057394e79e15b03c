"""Products in tiles: a float32 weight in panels as `product_kernel` has them, and rows of x in parts (`parts.py`).

AMX has registers and an adder of its own. So while tiles are multiplied, vectors make the parts of the weight that come
next, which are kept nowhere, and finish the rows whose sums are complete.

Each number of y is summed over chunks of 384 columns, in each over steps of 32 from the first to the last, and in those
in the order of `PRODUCTS`, whichever way the weight lies and however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.panel_block import turn
from tercet.nn.jit.parts import PARTS, PRODUCTS, STEP, multiply_parts, parts_of
from tercet.nn.jit.product_kernel import Product
from tercet.nn.jit.tiles import COUNT, ROWS, TILE, WORDS, Tiles
from tercet.nn.jit.values import Int, Memory

# What is done beside a step of so many products: the step, the product that comes next to, and how many there are.
Besides = Callable[[Int, int, int], None]


def panel_vectors(width: int) -> int:
    """Return how many vectors wide the panels of a weight with so many rows are.

    Where four fit, rows of x are read half as often as for two.
    """
    return 4 if width >= 4 * WORDS else 2


@Kernel
def tile_kernel(code: Code, laid: bool, vectors: int) -> None:
    """Write the product, whose words are `ProductWords`.

    Args:
        laid: whether the weight lies in panels.
        vectors: what `panel_vectors` says of the weight.
    """
    TileProduct(code, laid, vectors).write()


@dataclass(frozen=True)
class _Chunk:
    """So many columns of a panel as are multiplied at once.

    Attributes:
        first: row of the weight that the panel begins with. top: row of x that the unit begins with.
        start: first of the columns. steps: of 32 of them. floats: the panel, from there on.
    """

    first: Int
    top: Int
    start: Int
    steps: Int
    floats: Memory


class TileProduct(Product):
    """Writes the code: 32 rows by 32 columns at a time, and up to 16 rows by a whole panel."""

    deep = 384  # of which the parts of a panel stay in the second cache

    def __init__(self, code: Code, laid: bool, vectors: int) -> None:
        super().__init__(code, laid, vectors, pairs=False)
        self.tiles, self.across = Tiles(code), self.wide // WORDS  # tiles side by side
        self.parted = code.scratch(self.deep // STEP * PARTS * self.across * TILE)
        self.few = code.scratch(2 * PARTS * TILE)  # a step of few rows, and the one after it
        self.fresh = code.scratch(4 * TILE)  # a chunk's sums
        self.parts, self.all_steps = Memory(code, code.pointer(self.word.parts)), self.depth // STEP

    def write(self) -> None:
        """Write all units."""
        self.tiles.set_up()
        super().write()
        self.tiles.release()

    def unit(self, panel: Int, first: Int, top: Int, count: Int) -> None:
        """Write the product of some rows with a panel."""
        with self.code.either(count > ROWS) as (many, few):
            with many:
                self._many(panel, first, top, count)
            with few:
                self._few(panel, first, top, count)

    def _many(self, panel: Int, first: Int, top: Int, count: Int) -> None:
        code, high = self.code, (count + (ROWS - 1)) // ROWS  # tiles one above the other
        paired = high // 2 * 2
        with code.loop(self.depth, step=self.deep) as start:
            chunk = self._chunk(panel, first, top, start)
            for column in range(self.across):
                with code.loop(WORDS) as row:
                    self._part(chunk, code.number(0), row, column, code.number(0))
            for columns in self._halves():
                self._block(chunk, [code.number(0), code.number(1)], columns, partial(self._part_next, chunk, columns))
            with code.loop(paired, start=2, step=2) as tile:
                for columns in self._halves():
                    finish = partial(self._finish_before, chunk, tile, columns)
                    self._block(chunk, [tile, tile + 1], columns, finish)
            with code.loop(high, start=paired) as tile:
                columns = [*range(self.across)]
                self._block(chunk, [tile], columns, partial(self._finish_before, chunk, tile, columns))
            with code.when(self._completes(chunk)):
                self.finish(top, first, (high - 1) // 2 * (2 * ROWS), count)

    def _few(self, panel: Int, first: Int, top: Int, count: Int) -> None:
        code = self.code
        with code.loop(self.depth, step=self.deep) as start:
            chunk = self._chunk(panel, first, top, start)
            if self.laid:  # what comes next is at hand for the last step too
                with code.when(code.number(1) > start):
                    self._part_first(chunk, count)
                self._row_of_tiles(chunk, self.all_steps - start // STEP, count)
            else:
                self._part_first(chunk, count)
                self._row_of_tiles(chunk, chunk.steps, count)
            self._add_up(chunk, [column * WORDS for column in range(self.across)])
        self.finish(top, first, code.number(0), count)

    def _halves(self) -> list[list[int]]:
        """Return the tiles of a panel that are multiplied with two of x."""
        return [[at, at + 1] for at in range(0, self.across, 2)]

    def _chunk(self, panel: Int, first: Int, top: Int, start: Int) -> _Chunk:
        """Return the columns from `start` on, turned where the weight lies by rows."""
        columns = (self.depth - start).least(self.deep)
        if self.laid:
            floats = Memory(self.code, self.weight.at((panel * self.depth + start) * self.wide))
        else:
            floats = self.turned
            turn(self.code, self.weight, floats, first * self.depth + start, self.depth, columns, self.wide)
        return _Chunk(first, top, start, columns // STEP, floats)

    def _completes(self, chunk: _Chunk) -> Any:
        return chunk.start + chunk.steps * STEP > self.depth - 1

    def _part(self, chunk: _Chunk, step: Int, row: Int, column: int, into: Int) -> None:
        """Write a row of one of a step's tiles in parts, and have those numbers come near that this core parts next."""
        low, high = ((step * STEP + row + half) * self.wide + column * WORDS for half in (0, WORDS))
        ahead = (chunk.first + self.code.word(self.word.cores) * self.wide) * self.depth + chunk.start * self.wide
        for at in (low, high):
            self.weight.fetch(ahead + at)
        place = self._place(into, 0, column) + row * WORDS
        for part, words in enumerate(parts_of(chunk.floats.load(low), chunk.floats.load(high), rounded=False)):
            self.parted.store(words, place + part * (self.across * TILE))

    def _place(self, step: Int, part: int, column: int) -> Int:
        return ((step * PARTS + part) * self.across + column) * TILE

    def _tile(self, step: Int, column: int, part: int) -> tuple[Memory, Int]:
        return self.parted, self._place(step, part, column)

    def _tile_of_x(self, begin: Int, step: Int, part: int) -> tuple[Memory, Int]:
        return self.parts, begin + (step * PARTS + part) * TILE

    def _part_next(self, chunk: _Chunk, columns: list[int], step: Int, done: int, of: int) -> None:
        """Part some of what these columns' next step needs; after the last step, that one again."""
        following = (step + 1).least(chunk.steps - 1)
        work = [(row, column) for row in range(WORDS) for column in columns]
        for row, column in work[len(work) * done // of : len(work) * (done + 1) // of]:
            self._part(chunk, following, self.code.number(row), column, following)

    def _finish_before(self, chunk: _Chunk, tile: Int, columns: list[int], step: Int, done: int, of: int) -> None:
        """Finish, once a step, some of the two tiles of rows before a tile, if their sums are complete."""
        if done != of // 2:
            return
        self.tiles.keep_awake()
        all_steps = chunk.steps * (self.across // len(columns))
        at = step + chunk.steps * (columns[0] // len(columns))
        begin, end = ((tile - 2) * ROWS + (at + i) * (2 * ROWS) // all_steps for i in (0, 1))
        with self.code.when(self._completes(chunk)):
            self.finish(chunk.top, chunk.first, begin, end)

    def _block(self, chunk: _Chunk, rows: list[Int], columns: list[int], besides: Besides) -> None:
        """Add the product of a few tiles of x, one above the other, with some of the weight to their sums."""
        code, tiles = self.code, self.tiles
        grid = [(row, column) for row in rows for column in columns]
        for number in range(len(grid)):
            tiles.clear(number)
        begins = [self._left(chunk, row) for row in rows]
        with code.loop(chunk.steps) as step:
            lefts = [partial(self._tile_of_x, begin, step) for begin in begins]
            rights = [partial(self._tile, step, column) for column in columns]
            multiply_parts(tiles, lefts, rights, besides=partial(besides, step))
        self._add_up(chunk, [row * (ROWS * self.wide) + column * WORDS for row, column in grid])

    def _add_up(self, chunk: _Chunk, places: Sequence[int | Int]) -> None:
        """Add the first tiles to sums, or make them these where the chunk is the first."""
        with self.code.either(chunk.start > 0) as (later, at_first):
            with later:
                for number in range(len(places)):
                    self.tiles.store(number, self.fresh, number * TILE)
                for number, place in enumerate(places):
                    with self.code.loop(ROWS) as row:
                        at = row * self.wide + place
                        self.sums.store(self.sums.load(at) + self.fresh.load(row * WORDS + number * TILE), at)
            with at_first:
                for number, place in enumerate(places):
                    self.tiles.store(number, self.sums, place, self.wide)

    def _left(self, chunk: _Chunk, row: Int) -> Int:
        """Return where the parts of one of the unit's tiles of x begin, for these columns."""
        return ((chunk.top // ROWS + row) * self.all_steps + chunk.start // STEP) * (PARTS * TILE)

    def _part_first(self, chunk: _Chunk, count: Int) -> None:
        for row, column in self._work():
            self._part_one(chunk, self.code.number(0), self.code.number(0), row, column, count)

    def _work(self) -> list[tuple[int, int | None]]:
        """Return the rows of tiles that a step of few rows needs: of some column of the weight's, or of x's own."""
        return [(row, column) for row in range(ROWS) for column in (None, *range(self.across))]

    def _part_one(self, chunk: _Chunk, step: Int, buffer: Int, row: int, column: int | None, count: Int) -> None:
        if column is None:
            self._part_x(chunk, step, self.code.number(row), count, buffer)
        else:
            self._part(chunk, step, self.code.number(row), column, buffer)

    def _row_of_tiles(self, chunk: _Chunk, at_hand: Int, count: Int) -> None:
        """Sum the product of up to 16 rows with a panel in the first tiles, and meanwhile part the next step.

        After the last of the steps that are at hand, that one again.
        """
        code, tiles, work = self.code, self.tiles, self._work()
        left, right = self.across, self.across + PARTS  # the first tiles for x and for the weight
        products = [(*parts, column) for parts in PRODUCTS for column in range(self.across)]
        for number in range(self.across):
            tiles.clear(number)
        with code.loop(chunk.steps) as step:
            following, here, there = (step + 1).least(at_hand - 1), step % 2, (step + 1) % 2
            for x_part in range(PARTS):
                tiles.load(left + x_part, self.few, (here * PARTS + x_part) * TILE)
            for done, (x_part, part, tile) in enumerate(products):
                number = right + tile % (COUNT - right)
                tiles.load(number, self.parted, self._place(here, part, tile))
                tiles.add_product(tile, left + x_part, number)
                for row, column in work[len(work) * done // len(products) : len(work) * (done + 1) // len(products)]:
                    self._part_one(chunk, following, there, row, column, count)

    def _part_x(self, chunk: _Chunk, step: Int, row: Int, count: Int, buffer: Int) -> None:
        """Write a row of a step's tile of x in parts; the last of few rows stands for those that are none."""
        place = (chunk.top + row.least(count - 1)) * self.depth + chunk.start + step * STEP
        low, high = (self.x.load(place + half) for half in (0, WORDS))
        for part, words in enumerate(parts_of(low, high, rounded=True)):
            self.few.store(words, (buffer * PARTS + part) * TILE + row * WORDS)
