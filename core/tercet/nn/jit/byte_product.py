"""Products of rounded rows with a weight in int8, in tiles: y = activation(x Wᵀ + b) + residual, as `rounding` has it.

The weight lies in panels of tiles: (panels, depth / 64, panel / 16, 16, 16, 4) bytes, four numbers of a row of it side
by side, 16 such fours one below the other, and 16 rows across. Rows of x are tiles as they are.
"""

from __future__ import annotations

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.product_kernel import block_rows, first_row
from tercet.nn.jit.rounding import ByteProductWords, finish_of
from tercet.nn.jit.tiles import COUNT, ROWS, TILE, WORDS, Tiles
from tercet.nn.jit.values import Int, Memory, Vector

STEP = 4 * WORDS  # columns of a row of a tile
_WORD = ByteProductWords(*range(len(ByteProductWords._fields)))  # where each is


@Kernel
def byte_product_kernel(code: Code, across: int, activation: str | None, added: bool) -> None:
    """Write the product.

    Args:
        across: tiles side by side in a panel.
        activation: None or "gelu". added: whether there is a residual.
    """
    _ByteProduct(code, across, activation, added).write()


class _ByteProduct:
    """Writes the code: 32 rows by 32 columns at a time, or 16 rows by a whole panel."""

    def __init__(self, code: Code, across: int, activation: str | None, added: bool) -> None:
        self.code, self.tiles, self.across, self.wide = code, Tiles(code), across, across * WORDS
        self.activation, self.added = activation, added
        self.x, self.weight, self.y, self.residual, self.scales = (
            Memory(code, code.pointer(at)) for at in (_WORD.x, _WORD.weight, _WORD.y, _WORD.residual, _WORD.scales)
        )
        self.depth, self.width = code.word(_WORD.depth), code.word(_WORD.width)
        self.sums, self.finishes = code.scratch(2 * ROWS * self.wide), finish_of(code, _WORD)

    def write(self) -> None:
        """Write a loop over panels and blocks of rows; threads that run it share them out."""
        code, panels, rows, high = self.code, self.code.word(_WORD.panels), self.code.word(_WORD.rows), block_rows()
        self.tiles.set_up()
        with code.shared_loop(_WORD) as unit:
            panel, top = unit % panels, unit // panels * high
            bottom, first = (top + high).least(rows), first_row(panel, self.width, self.wide)
            paired = top + (bottom - top + (ROWS - 1)) // (2 * ROWS) * (2 * ROWS)
            with code.loop(paired, start=top, step=2 * ROWS) as row:
                for at in range(0, self.across, 2):
                    self._block(panel, row, [0, 1], [at, at + 1])
                self._finish(row, (row + 2 * ROWS).least(bottom), first)
            with code.loop(bottom, start=paired, step=2 * ROWS) as row:
                self._block(panel, row, [0], [*range(self.across)])
                self._finish(row, bottom, first)
        self.tiles.release()

    def _block(self, panel: Int, row: Int, below: list[int], columns: list[int]) -> None:
        """Write the sums of tiles of x, one below the other, with some of the weight."""
        tiles, steps = self.tiles, self.depth // STEP
        grid = [(i, column) for i in below for column in columns]
        left, right = len(grid), len(grid) + len(below)  # the first tiles for those of x and of the weight
        for number in range(len(grid)):
            tiles.clear(number)
        with self.code.loop(steps) as step:
            for i in below:
                place = (row + i * ROWS) * (self.depth // 4) + step * WORDS
                tiles.load(left + i, self.x, place, self.depth // 4)
            for j, column in enumerate(columns):
                number = right + j % (COUNT - right)
                tiles.load(number, self.weight, ((panel * steps + step) * self.across + column) * TILE)
                for i in below:
                    tiles.add_bytes(i * len(columns) + j, left + i, number)
        for number, (i, column) in enumerate(grid):
            tiles.store(number, self.sums, i * ROWS * self.wide + column * WORDS, self.wide)

    def _finish(self, begin: Int, end: Int, first: Int) -> None:
        """Write the rows of y that a few tiles of sums are."""
        code = self.code
        with code.loop(end, start=begin) as row:
            finish = self.finishes.row(row)
            for at in range(0, self.wide, WORDS):
                place, column = row * self.width + first + at, first + at
                sums = code.b.bitcast(self.sums.load((row - begin) * self.wide + at).value, code.integers)
                product = Vector(code, code.b.sitofp(sums, code.vector)) * self.scales.load(column)
                result = finish(product, column)
                if self.activation == "gelu":
                    result = result.gelu()
                self.y.store(result + self.residual.load(place) if self.added else result, place)
