"""Operands of products in tiles: rows of x and a weight in parts (`parts.py`), in memory of the thread that multiplies.

They are made bit by bit beside the products before those that need them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tercet.nn.jit.parts import PARTS, STEP, parts_of
from tercet.nn.jit.product_kernel import Product, first_row
from tercet.nn.jit.tiles import ROWS, TILE, WORDS
from tercet.nn.jit.values import Int, Memory, Vector

DEPTH = 384  # columns that are summed at once, of which the parts of a panel stay in the second cache
STEPS = DEPTH // STEP
BLOCK = 320  # rows of x at most, of which the parts of so many columns stay in the second cache
_AHEAD = 2 * STEP  # numbers of a row, from one that is parted to one that should be near by then


@dataclass(frozen=True)
class Unit:
    """A unit of work: rows `top` to `top` + `count` of x, and a group of panels from `begin` to before `end`."""

    top: Int
    count: Int
    begin: Int
    end: Int

    @property
    def high(self) -> Int:
        """How many tiles of rows there are, one above the other."""
        return (self.count + (ROWS - 1)) // ROWS


@dataclass(frozen=True)
class Chunk:
    """So many columns of one of a unit's panels as are multiplied at once, of a weight with `depth` columns.

    A unit goes over all its panels with a chunk before the next, so that the parts of x stay near.
    """

    unit: Unit
    panel: Int
    start: Int
    depth: Int

    @property
    def steps(self) -> Int:
        """How many steps of columns it has."""
        return (self.depth - self.start).least(DEPTH).most(0) // STEP

    @property
    def left(self) -> Int:
        """How many steps are left to the end of the panel."""
        return (self.depth - self.start) // STEP

    @property
    def number(self) -> Int:
        """How many panels of the group come before."""
        return self.panel - self.unit.begin

    @property
    def item(self) -> Int:
        """How many chunks of the unit come before."""
        return self.start // DEPTH * (self.unit.end - self.unit.begin) + self.number

    @property
    def following(self) -> Chunk:
        """What comes next in the unit; after the last, what has no steps."""
        ends = self.panel + 2 > self.unit.end
        panel, start = self.unit.begin.where(ends, self.panel + 1), (self.start + DEPTH).where(ends, self.start)
        return Chunk(self.unit, panel, start, self.depth)


class RowTiles:
    """Rows of x in parts: of each 16 as many steps as a chunk has, or fewer, used in turn."""

    def __init__(self, product: Product) -> None:
        self.code, self.x = product.code, product.x
        self.memory = self.code.scratch(BLOCK // ROWS * STEPS * PARTS * TILE)

    def tile(self, tile: Int, slot: Int, part: int) -> tuple[Memory, Int]:
        """Return where a part of a step's tile is; the tile is counted from the unit's first row."""
        return self.memory, ((tile * STEPS + slot) * PARTS + part) * TILE

    def write(self, chunk: Chunk, begin: Int, end: Int, step: Int, slot: Int) -> None:
        """Write a step of some rows of the unit; after the last row come others like it."""
        with self.code.loop(end, start=begin) as row:
            place = (chunk.unit.top + row.least(chunk.unit.count - 1)) * chunk.depth + chunk.start + step * STEP
            low, high = (self.x.load(place + half) for half in (0, WORDS))
            for part, words in enumerate(parts_of(low, high, rounded=True)):
                memory, tile = self.tile(row // ROWS, slot, part)
                memory.store(words, tile + row % ROWS * WORDS)


class WeightTiles:
    """A weight in parts: as many steps of a panel as two chunks have, or fewer, used in turn.

    They are made in pieces: rows of tiles of a weight in panels, whole tiles of one by rows, which are turned.
    """

    def __init__(self, product: Product) -> None:
        self.code, self.product = product.code, product
        self.across = product.wide // WORDS  # tiles side by side
        self.memory = self.code.scratch(2 * STEPS * self.across * PARTS * TILE)

    def tile(self, slot: Int, column: int, part: int) -> tuple[Memory, Int]:
        """Return where a part of a step's tile is."""
        return self.memory, ((slot * PARTS + part) * self.across + column) * TILE

    def pieces(self, columns: int) -> int:
        """Return in how many pieces a step of so many tiles side by side is made."""
        return columns * WORDS if self.product.laid else columns

    def write(self, chunk: Chunk, piece: Int, columns: list[int], step: Int, slot: Int) -> None:
        """Write a piece of a step of some tiles side by side."""
        column, row = piece % len(columns) + columns[0], piece // len(columns)
        if self.product.laid:
            place = ((chunk.panel * chunk.depth + chunk.start + step * STEP) + row) * self.product.wide + column * WORDS
            self._put(slot, row, column, *(self._load(place + half * self.product.wide) for half in (0, WORDS)))
            return
        first = first_row(chunk.panel, self.product.width, self.product.wide) + column * WORDS
        place = first * chunk.depth + chunk.start + step * STEP
        halves = []
        for half in (0, WORDS):
            places = [self.code.number(lane) * chunk.depth + place + half for lane in range(WORDS)]
            for at in places:
                self.product.weight.fetch(at + _AHEAD)
            halves.append(self.code.transpose([self._load(at) for at in places]))
        for number, (low, high) in enumerate(zip(*halves, strict=True)):
            self._put(slot, self.code.number(number), column, low, high)

    def _load(self, place: Int) -> Vector:
        return self.product.weight.load(place)

    def _put(self, slot: Int, row: Int, column: Int, low: Vector, high: Vector) -> None:
        for part, words in enumerate(parts_of(low, high, rounded=False)):
            memory, tile = self.tile(slot, 0, part)
            memory.store(words, tile + column * TILE + row * WORDS)
