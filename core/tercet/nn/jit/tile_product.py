"""Products in tiles: of rows of x and a float32 weight as `product_kernel` has them, both in parts (`parts.py`).

AMX has registers and an adder of its own. So while tiles are multiplied, vectors make the parts that come next, of
which no model keeps any, and finish the rows whose sums are complete.

Each number of y is summed over chunks of 384 columns, in each over steps of 32 from the first to the last, and in those
in the order of `PRODUCTS`, whichever way the weight lies and however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.operands import BLOCK, DEPTH, STEPS, Chunk, RowTiles, Unit, WeightTiles
from tercet.nn.jit.parts import EIGHTHS, PARTS, PRODUCTS, multiply_parts, share
from tercet.nn.jit.product_kernel import Product, ProductWords, first_row
from tercet.nn.jit.tiles import COUNT, ROWS, TILE, WORDS, Tiles
from tercet.nn.jit.values import Int, Memory

_TWO = 2 * ROWS  # rows that are multiplied at once
_KEPT = 2  # steps whose parts are kept where they are needed once: more would leave the first cache
_DEEP_GROUP = 6  # panels of a group where there are several chunks, and the sums of all are kept
_GROUPS_PER_HELPER = 4  # that a block of rows is shared out in, so that no core waits long for another

Besides = Callable[[Int, int], None]  # writes what is done beside the products of a step, after each eighth of them


class TileProductWords(ProductWords):
    """The words of `tile_kernel`: `ProductWords`, with other units of work."""

    @staticmethod
    def blocks_of(rows: int) -> int:
        """Return in how many blocks rows of x are multiplied."""
        return -(-rows // BLOCK)


def panel_vectors(width: int) -> int:
    """Return how many vectors wide the panels of a weight with so many rows are.

    Where four fit, rows of x are read half as often as for two.
    """
    return 4 if width >= 4 * WORDS else 2


@Kernel
def tile_kernel(code: Code, laid: bool, vectors: int) -> None:
    """Write the product, whose words are `TileProductWords`.

    Args:
        laid: whether the weight lies in panels.
        vectors: what `panel_vectors` says of the weight.
    """
    TileProduct(code, laid, vectors).write()


class TileProduct(Product):
    """Writes the code: 32 rows by 32 columns at a time, and up to 16 rows by a whole panel.

    More rows go over a group of panels, which is done with the first of its units of work.
    """

    def __init__(self, code: Code, laid: bool, vectors: int) -> None:
        super().__init__(code, laid, vectors, pairs=False)
        self.tiles, self.across = Tiles(code), self.wide // WORDS  # tiles side by side
        self.row_tiles, self.weight_tiles = RowTiles(self), WeightTiles(self)
        self.sums = code.scratch(_DEEP_GROUP * BLOCK * self.wide)
        self.fresh = code.scratch(4 * TILE)  # a chunk's sums
        self.panels, self.blocks = (
            code.word(self.word.panels),
            code.word(self.word.units) // code.word(self.word.panels),
        )
        self.high = (self.rows + (self.blocks * _TWO - 1)) // (self.blocks * _TWO) * _TWO  # near-equal blocks
        self.group = self._group()

    def _group(self) -> Int:
        """Return how many panels a group has."""
        helpers = self.code.word(self.word.cores) - 1
        most = self.code.number(_DEEP_GROUP).where(self.depth > DEPTH, self.panels)
        return (self.panels * self.blocks // (helpers * _GROUPS_PER_HELPER).most(1)).least(most).most(1)

    def write(self) -> None:
        """Write all units; where there are few rows, tiles of x and of sums have no more, and take less time."""
        self.tiles.set_up(range(self.across + PARTS), self.rows.least(ROWS))
        super().write()
        self.tiles.release()

    def unit(self, panel: Int, first: Int, top: Int, count: Int) -> None:
        """Write the product of few rows with a panel, or of more with those of its group, if it is their first."""
        code = self.code
        with code.either(count > ROWS) as (many, few):
            with many, code.when(code.number(1) > panel % self.group):
                unit = Unit(top, count, panel, (panel + self.group).least(self.panels))
                with code.loop(self.depth, step=DEPTH) as start, code.loop(unit.end, start=panel) as at:
                    self._many(Chunk(unit, at, start, self.depth))
            with few, code.loop(self.depth, step=DEPTH) as start:
                self._few(Chunk(Unit(top, count, panel, panel + 1), panel, start, self.depth))

    def _many(self, chunk: Chunk) -> None:
        code, unit = self.code, chunk.unit
        with code.when(self._begins(chunk.number)), code.loop(chunk.steps) as step:
            self.row_tiles.write(chunk, code.number(0), code.number(_TWO), step, step)
        with code.either(unit.high > 2) as (several, two):
            with several:
                self._several(chunk)
            with two:
                self._two(chunk)
        self._finish(chunk, (unit.high - 1) // 2 * _TWO, unit.count)

    def _several(self, chunk: Chunk) -> None:
        """Write the product of more than two tiles of rows, and beside it the parts that come next."""
        code, high, halves = self.code, chunk.unit.high, self._halves()
        paired, whole = high // 2 * 2, [*range(self.across)]
        pieces, following = self.weight_tiles.pieces(self.across), chunk.following
        times = paired // 2 * len(halves) * chunk.steps * 4  # that something is done of the next panel
        a_time = (following.steps * pieces + (times - 1)) // times

        def part_weight(chunk: Chunk, begin: Int, end: Int) -> None:
            with code.loop(end, start=begin) as number:
                step = number // pieces
                self.weight_tiles.write(chunk, number % pieces, whole, step, self._slot(chunk, step))

        def beside(tile: Int, half: int, step: Int, eighth: int) -> None:
            self._finish_before(chunk, tile, (half, len(halves)), step, eighth)
            if eighth % 2 == 0:
                rows = _TWO // len(halves) // 4
                begin = (tile + 2) * ROWS + (half * 4 + eighth // 2) * rows
                with code.when(self._begins(chunk.number)):
                    self.row_tiles.write(chunk, begin, (begin + rows).least(high * ROWS), step, step)
            else:
                begin = (((tile // 2 * len(halves) + half) * chunk.steps + step) * 4 + eighth // 2) * a_time
                part_weight(following, begin, (begin + a_time).least(following.steps * pieces))

        with code.when(self._begins(chunk.item)):
            part_weight(chunk, code.number(0), chunk.steps * pieces)
        with code.loop(paired, step=2) as tile:
            for half, columns in enumerate(halves):
                self._block(chunk, [tile, tile + 1], columns, partial(beside, tile, half))
        with code.loop(high, start=paired) as tile:
            self._block(chunk, [tile], whole, partial(self._finish_before, chunk, tile, (0, 1)))

    def _two(self, chunk: Chunk) -> None:
        """Write the product of two tiles of rows, and with it the parts of the weight, a step ahead.

        No other rows will need them, so they are written over, and stay in the first cache.
        """
        rows = [self.code.number(tile) for tile in range(2)]
        for columns in self._halves():
            self._part_step(chunk, columns, self.code.number(0))

            def beside(step: Int, eighth: int, columns: list[int] = columns) -> None:
                self._part_step(chunk, columns, (step + 1).least(chunk.steps - 1), eighth)

            self._block(chunk, rows, columns, beside, _KEPT)

    def _few(self, chunk: Chunk) -> None:
        """Write the product of up to 16 rows with a panel in the first tiles, and part the next step meanwhile."""
        code, tiles, columns = self.code, self.tiles, [*range(self.across)]
        left, right = self.across, self.across + PARTS  # the first tiles for x and for the weight
        # Products with one part of a column follow each other, so that its tile is read once.
        products = [
            (x_part, part, column)
            for part in reversed(range(PARTS))
            for column in columns
            for x_part, other in PRODUCTS
            if other == part
        ]
        zero = code.number(0)
        with code.when(self._begins(chunk.start)):  # later what comes first was parted beside what was last
            self._part_step(chunk, columns, zero)
            self.row_tiles.write(chunk, zero, chunk.unit.count, zero, zero)
        for column in columns:
            tiles.clear(column)
        with code.loop(chunk.steps) as step:
            following, following_slot = (step + 1).least(chunk.left - 1), (step + 1) % _KEPT
            for x_part in range(PARTS):
                tiles.load(left + x_part, *self.row_tiles.tile(zero, step % _KEPT, x_part))
            held = (-1, -1)
            for done, (x_part, part, column) in enumerate(products):
                number = right + column % (COUNT - right)
                if held != (part, column):
                    tiles.load(number, *self.weight_tiles.tile(step % _KEPT, column, part))
                held = part, column
                tiles.add_product(column, left + x_part, number)
                for piece in share(self.weight_tiles.pieces(self.across), done, len(products)):
                    self.weight_tiles.write(chunk, code.number(piece), columns, following, following_slot)
                for row in share(ROWS, done, len(products)):
                    one = code.number(row), code.number(row + 1).least(chunk.unit.count)
                    self.row_tiles.write(chunk, *one, following, following_slot)
        self._add_up(chunk, [column * WORDS for column in columns])
        self._finish(chunk, zero, chunk.unit.count)

    def _part_step(self, chunk: Chunk, columns: list[int], step: Int, eighth: int | None = None) -> None:
        """Part a step of some tiles of the weight side by side, or an eighth of it."""
        pieces = self.weight_tiles.pieces(len(columns))
        begin, end = (0, pieces) if eighth is None else (pieces * at // EIGHTHS for at in (eighth, eighth + 1))
        with self.code.loop(end, start=begin) as piece:
            self.weight_tiles.write(chunk, piece, columns, step, step % _KEPT)

    def _slot(self, chunk: Chunk, step: Int) -> Int:
        """Return where a step's parts are, while those of the next chunk are made."""
        return chunk.item % 2 * STEPS + step

    def _begins(self, number: Int) -> Any:
        return self.code.number(1) > number

    def _halves(self) -> list[list[int]]:
        """Return the tiles of a panel that are multiplied with two of x."""
        return [[at, at + 1] for at in range(0, self.across, 2)]

    def _finish_before(self, chunk: Chunk, tile: Int, turn: tuple[int, int], step: Int, eighth: int) -> None:
        """Finish, after every other eighth of a step, some vectors of the two tiles of rows before a tile.

        Args:
            turn: which of so many passes over the columns it is.
        """
        if eighth % 2 == 1:
            return
        self.tiles.keep_awake()
        times, vectors = chunk.steps * (4 * turn[1]), _TWO * self.across
        a_time = (times + (vectors - 1)) // times
        begin = (tile - 2) * (ROWS * self.across) + ((chunk.steps * turn[0] + step) * 4 + eighth // 2) * a_time
        end = (begin + a_time).least(tile * (ROWS * self.across))
        with self.code.when(self._completes(chunk)), self.code.loop(end, start=begin.most(0)) as vector:
            row, at = vector // self.across, vector % self.across * WORDS
            self.finish_vector(chunk.unit.top, self._first_row(chunk), row, at, self._sums(chunk))

    def _finish(self, chunk: Chunk, begin: Int, end: Int) -> None:
        """Finish some rows, if their sums are complete."""
        with self.code.when(self._completes(chunk)):
            self.finish(chunk.unit.top, self._first_row(chunk), begin, end, self._sums(chunk))

    def _completes(self, chunk: Chunk) -> Any:
        return chunk.start + DEPTH > self.depth - 1

    def _first_row(self, chunk: Chunk) -> Int:
        return first_row(chunk.panel, self.width, self.wide)

    def _sums(self, chunk: Chunk) -> Memory:
        """Return the panel's; they are all kept where there are several chunks."""
        number = chunk.number.where(self.depth > DEPTH, self.code.number(0))
        return Memory(self.code, self.sums.at(number * (BLOCK * self.wide)))

    def _block(self, chunk: Chunk, rows: list[Int], columns: list[int], besides: Besides, kept: int = 0) -> None:
        """Add the product of a few tiles of x, one above the other, with some of the weight to their sums.

        Args:
            kept: steps of the weight that are kept in turn, or 0 for all.
        """
        code, tiles = self.code, self.tiles
        grid = [(row, column) for row in rows for column in columns]
        for number in range(len(grid)):
            tiles.clear(number)
        with code.loop(chunk.steps) as step:
            slot = step % kept if kept else self._slot(chunk, step)
            lefts = [partial(self.row_tiles.tile, row, step) for row in rows]
            rights = [partial(self.weight_tiles.tile, slot, column) for column in columns]
            multiply_parts(tiles, lefts, rights, besides=partial(besides, step))
        self._add_up(chunk, [row * (ROWS * self.wide) + column * WORDS for row, column in grid])

    def _add_up(self, chunk: Chunk, places: Sequence[int | Int]) -> None:
        """Add the first tiles to sums, or make them these where the chunk is the first."""
        sums = self._sums(chunk)
        with self.code.either(chunk.start > 0) as (later, at_first):
            with later:
                for number in range(len(places)):
                    self.tiles.store(number, self.fresh, number * TILE)
                for number, place in enumerate(places):
                    with self.code.loop(ROWS) as row:
                        at = row * self.wide + place
                        sums.store(sums.load(at) + self.fresh.load(row * WORDS + number * TILE), at)
            with at_first:
                for number, place in enumerate(places):
                    self.tiles.store(number, sums, place, self.wide)
