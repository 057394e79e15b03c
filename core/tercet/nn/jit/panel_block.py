"""Blocks of a panel: so many columns of a weight as are summed at once, and tiles of rows that go over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tercet.nn.jit.code import Code
from tercet.nn.jit.values import Int, Memory

if TYPE_CHECKING:
    from tercet.nn.jit.product_kernel import Product

DEPTH = 128  # columns that are summed, and turned, at once

Fetched = Callable[[list[Int]], Callable[[Int], None]]  # a tile's rows → what writes what comes near in a column


def turn(code: Code, weight: Memory, panel: Memory, corner: Int, depth: Int, columns: Int, wide: int) -> None:
    """Panel[column] = weight[row, column] for all rows of a panel, the first of them beginning at `corner`.

    The last columns that fill a vector are turned together, though some of them have been already; with fewer columns
    than that, some before the corner too.
    """
    lanes = code.lanes
    for at in range(0, wide, lanes):
        places = [corner + depth * (at + lane) for lane in range(lanes)]
        with code.loop(columns, step=lanes) as index:
            column = index.least(columns - lanes)
            for i, turned in enumerate(code.transpose([weight.load(place + column) for place in places])):
                panel.store(turned, (column + i) * wide + at)


class Block:
    """So many columns of a panel as are summed at once, and the rows of x that go over them."""

    def __init__(self, product: Product, panel: Int, first: Int, top: Int, start: Int) -> None:
        code, wide = product.code, product.wide
        self.product, self.first, self.top, self.start = product, first, top, start
        self.columns = (product.depth - start).least(DEPTH)
        if product.laid:
            self.panel = Memory(code, product.weight.at((panel * product.depth + start) * wide))
        else:
            self.panel = product.turned
            turn(code, product.weight, self.panel, first * product.depth + start, product.depth, self.columns, wide)

    def tile(self, rows: list[Int], fetched: Fetched | None) -> None:
        """Add the product over these columns to the sums of a few rows from `top` on; rows may repeat."""
        product, code, wide = self.product, self.product.code, self.product.wide
        parts = {(row, at): code.variable(code.constant(0.0)) for row in rows for at in product.columns}
        lefts = {row: (self.top + row) * product.depth + self.start for row in rows}
        fetch = fetched(rows) if fetched is not None else None
        with code.loop(self.columns) as column:
            if fetch is not None:
                fetch(column)
            weights = {at: self.panel.load(column * wide + at) for at in product.columns}
            for row, left in lefts.items():
                number = product.x.broadcast(left + column)
                for at, weight in weights.items():
                    part = parts[row, at]
                    part.store(product.multiply_add(number, weight, part.load()))
        for part in parts.values():
            part.store(product.number(part.load()))
        with code.when(self.start > 0):
            for (row, at), part in parts.items():
                part.store(product.sums.load(row * wide + at) + part.load())
        for (row, at), part in parts.items():
            product.sums.store(part.load(), row * wide + at)

    def lines(self, lines: range, tile: list[Int]) -> Callable[[Int], None]:
        """Return what has lines of a column come near, of the next unit's part of the weight.

        The first two tiles share them out. Where it is one line, so do the next rows of x, each too few numbers for a
        processor with AVX-512 to foresee.
        """
        product = self.product
        next_row = (self.top + tile[0] + product.tall) * product.depth + self.start
        ahead = self._ahead()

        def fetch(column: Int) -> None:
            for at in lines:
                product.weight.fetch(ahead + column * product.wide + at)
            if len(lines) == 1:
                product.x.fetch(next_row + column % 8 * product.depth + column // 8 * 8)

        return fetch

    def share(self, part: Int, several: Int, _: list[Int]) -> Callable[[Int], None]:
        """Return what has the same come near where a column is one line: half of them in each of two tiles, or all.

        Without rows of x: with AVX2 alone that cost up to half of the rate, where they lie a multiple of 4 KiB apart.
        """
        wide, ahead = self.product.wide, self._ahead() + part * (self.columns // 2) * self.product.wide
        return lambda column: self.product.weight.fetch(ahead + (column >> several) * wide)

    def _ahead(self) -> Int:
        """Return where in the weight this core reads next, as a rule."""
        product = self.product
        cores = product.code.word(product.word.cores)
        return (self.first + cores * product.wide) * product.depth + self.start * product.wide
