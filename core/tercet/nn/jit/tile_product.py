"""Products in tiles: a float32 weight in panels as `product_kernel` has them, and rows of x in parts (`parts.py`).

AMX has registers and an adder of its own. So while tiles are multiplied, vectors make the parts of the weight that come
next, of which no model keeps any, and finish the rows whose sums are complete.

Each number of y is summed over chunks of 384 columns, in each over steps of 32 from the first to the last, and in those
in the order of `PRODUCTS`, whichever way the weight lies and however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.parts import PARTS, PRODUCTS, STEP, multiply_parts, parts_of
from tercet.nn.jit.product_kernel import Product
from tercet.nn.jit.tiles import COUNT, ROWS, TILE, WORDS, Tiles
from tercet.nn.jit.values import Int, Memory, Vector

_KEPT = 2  # steps whose parts are kept where they are needed once: more would leave the first cache
_AHEAD = 2 * STEP  # numbers of a row, from one that is parted to one that should be near by then
DEPTH = 384  # columns that are summed at once, of which the parts of a panel stay in the second cache

# Writes what is done beside a step, a bit after each product: the step, how many were before, and how many there are.
Besides = Callable[[Int, int, int], None]
Part = Callable[[Int, Int], None]  # writes some parts of a step, and where a step's are


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
        start: first of the columns. steps: of 32 of them. left: steps to the end of the panel.
        place: in the weight, where these columns begin.
    """

    first: Int
    top: Int
    start: Int
    steps: Int
    left: Int
    place: Int


class TileProduct(Product):
    """Writes the code: 32 rows by 32 columns at a time, and up to 16 rows by a whole panel."""

    def __init__(self, code: Code, laid: bool, vectors: int) -> None:
        super().__init__(code, laid, vectors, pairs=False)
        self.tiles, self.across = Tiles(code), self.wide // WORDS  # tiles side by side
        self.parted = code.scratch(DEPTH // STEP * PARTS * self.across * TILE)
        self.few = code.scratch(_KEPT * PARTS * TILE)  # of few rows
        self.fresh = code.scratch(4 * TILE)  # a chunk's sums
        self.parts, self.all_steps = Memory(code, code.pointer(self.word.parts)), self.depth // STEP

    def write(self) -> None:
        """Write all units; where there are few rows, tiles of x and of sums have no more, and take less time."""
        self.tiles.set_up(range(self.across + PARTS), self.rows.least(ROWS))
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
        with code.loop(self.depth, step=DEPTH) as start:
            chunk = self._chunk(panel, first, top, start)
            with code.either(high > 2) as (several, only):
                for branch, kept in ((several, DEPTH // STEP), (only, _KEPT)):
                    with branch:
                        self._first_two(chunk, kept)
            with code.loop(paired, start=2, step=2) as tile:
                for columns in self._halves():
                    finish = partial(self._finish_before, chunk, tile, columns)
                    self._block(chunk, [tile, tile + 1], columns, finish)
            with code.loop(high, start=paired) as tile:
                columns = [*range(self.across)]
                self._block(chunk, [tile], columns, partial(self._finish_before, chunk, tile, columns))
            with code.when(self._completes(chunk)):
                self.finish(top, first, (high - 1) // 2 * (2 * ROWS), count)

    def _first_two(self, chunk: _Chunk, kept: int) -> None:
        """Write the product of the first two tiles of rows, and with it the parts of so many steps of the weight.

        Those that no other rows will need are written over, and so stay in the first cache.
        """
        rows = [self.code.number(i) for i in range(2)]
        for columns in self._halves():
            self._begin(self._parting(chunk, columns))
            self._block(chunk, rows, columns, partial(self._part_next, chunk, columns, kept), kept)

    def _few(self, panel: Int, first: Int, top: Int, count: Int) -> None:
        code = self.code
        with code.loop(self.depth, step=DEPTH) as start:
            chunk = self._chunk(panel, first, top, start)
            work = [*self._parting(chunk, [*range(self.across)]), *self._parting_x(chunk, count)]
            with code.when(code.number(1) > start):  # later what comes first was parted beside what was last
                self._begin(work)
            self._row_of_tiles(chunk, work)
            self._add_up(chunk, [column * WORDS for column in range(self.across)])
        self.finish(top, first, code.number(0), count)

    def _begin(self, work: list[Part]) -> None:
        """Do the work of the first step, before it is multiplied."""
        for part in work:
            part(self.code.number(0), self.code.number(0))

    def _halves(self) -> list[list[int]]:
        """Return the tiles of a panel that are multiplied with two of x."""
        return [[at, at + 1] for at in range(0, self.across, 2)]

    def _chunk(self, panel: Int, first: Int, top: Int, start: Int) -> _Chunk:
        """Return the columns from `start` on."""
        place = (panel * self.depth + start) * self.wide if self.laid else first * self.depth + start
        steps = (self.depth - start).least(DEPTH) // STEP
        return _Chunk(first, top, start, steps, self.all_steps - start // STEP, place)

    def _completes(self, chunk: _Chunk) -> Any:
        return chunk.start + chunk.steps * STEP > self.depth - 1

    def _parting(self, chunk: _Chunk, columns: list[int]) -> list[Part]:
        """Return what makes the parts of these columns of a step, bit by bit."""
        if not self.laid:
            return [partial(self._part_tile, chunk, column) for column in columns]
        return [partial(self._part_row, chunk, row, column) for row in range(WORDS) for column in columns]

    def _part_row(self, chunk: _Chunk, row: int, column: int, step: Int, into: Int) -> None:
        """Write a row of a tile of a weight in panels."""
        low, high = ((step * STEP + row + half) * self.wide + column * WORDS for half in (0, WORDS))
        self._fetch(chunk, low)
        self._fetch(chunk, high)
        self._put(into, row, column, *(self.weight.load(chunk.place + at) for at in (low, high)))

    def _part_tile(self, chunk: _Chunk, column: int, step: Int, into: Int) -> None:
        """Write a tile of a weight by rows, turned."""
        halves = []
        for half in (0, WORDS):
            places = [self.depth * (column * WORDS + lane) + step * STEP + half for lane in range(WORDS)]
            for place in places:
                self._fetch(chunk, place)
            halves.append(self.code.transpose([self.weight.load(chunk.place + place) for place in places]))
        for row, (low, high) in enumerate(zip(*halves, strict=True)):
            self._put(into, row, column, low, high)

    def _fetch(self, chunk: _Chunk, place: Int) -> None:
        """Have come near what this core reads instead of a number in its next panel, or what is ahead in a row."""
        ahead = self.code.word(self.word.cores) * self.wide * self.depth if self.laid else _AHEAD
        self.weight.fetch(chunk.place + place + ahead)

    def _put(self, step: Int, row: int, column: int, low: Vector, high: Vector) -> None:
        for part, words in enumerate(parts_of(low, high, rounded=False)):
            self.parted.store(words, self._place(step, part, column) + row * WORDS)

    def _place(self, step: Int, part: int, column: int) -> Int:
        return ((step * PARTS + part) * self.across + column) * TILE

    def _tile(self, step: Int, column: int, part: int) -> tuple[Memory, Int]:
        return self.parted, self._place(step, part, column)

    def _tile_of_x(self, begin: Int, step: Int, part: int) -> tuple[Memory, Int]:
        return self.parts, begin + (step * PARTS + part) * TILE

    def _part_next(self, chunk: _Chunk, columns: list[int], kept: int, step: Int, done: int, of: int) -> None:
        """Part some of what these columns' next step needs; after the last step, that one again."""
        following = (step + 1).least(chunk.steps - 1)
        for part in _share(self._parting(chunk, columns), done, of):
            part(following, following % kept)

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

    def _block(
        self, chunk: _Chunk, rows: list[Int], columns: list[int], besides: Besides, kept: int = DEPTH // STEP
    ) -> None:
        """Add the product of a few tiles of x, one above the other, with some of the weight to their sums."""
        code, tiles = self.code, self.tiles
        grid = [(row, column) for row in rows for column in columns]
        for number in range(len(grid)):
            tiles.clear(number)
        begins = [self._left(chunk, row) for row in rows]
        with code.loop(chunk.steps) as step:
            lefts = [partial(self._tile_of_x, begin, step) for begin in begins]
            rights = [partial(self._tile, step % kept, column) for column in columns]
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

    def _row_of_tiles(self, chunk: _Chunk, work: list[Part]) -> None:
        """Sum the product of up to 16 rows with a panel in the first tiles, and do the next step's work meanwhile.

        After the panel's last step, that of this one again.
        """
        code, tiles = self.code, self.tiles
        left, right = self.across, self.across + PARTS  # the first tiles for x and for the weight
        # Products with one part of a column follow each other, so that its tile is read once.
        products = [
            (x_part, part, column)
            for part in reversed(range(PARTS))
            for column in range(self.across)
            for x_part, other in PRODUCTS
            if other == part
        ]
        for number in range(self.across):
            tiles.clear(number)
        with code.loop(chunk.steps) as step:
            following, here, there = (step + 1).least(chunk.left - 1), step % _KEPT, (step + 1) % _KEPT
            for x_part in range(PARTS):
                tiles.load(left + x_part, self.few, (here * PARTS + x_part) * TILE)
            held = (-1, -1)
            for done, (x_part, part, column) in enumerate(products):
                number = right + column % (COUNT - right)
                if held != (part, column):
                    tiles.load(number, self.parted, self._place(here, part, column))
                held = part, column
                tiles.add_product(column, left + x_part, number)
                for write in _share(work, done, len(products)):
                    write(following, there)

    def _parting_x(self, chunk: _Chunk, count: Int) -> list[Part]:
        """Return what makes the parts of few rows of x."""
        return [partial(self._part_x, chunk, row, count) for row in range(ROWS)]

    def _part_x(self, chunk: _Chunk, row: int, count: Int, step: Int, into: Int) -> None:
        """Write a row of a step's tile of x in parts, if there is one."""
        place = (chunk.top + row) * self.depth + chunk.start + step * STEP
        with self.code.when(count > row):
            low, high = (self.x.load(place + half) for half in (0, WORDS))
            for part, words in enumerate(parts_of(low, high, rounded=True)):
                self.few.store(words, (into * PARTS + part) * TILE + row * WORDS)


def _share(work: list[Part], done: int, of: int) -> list[Part]:
    """Return what of the work falls to the time after so many of some products."""
    return work[len(work) * done // of : len(work) * (done + 1) // of]
