"""Attention in tiles: that of `attention_kernel`, with scores and mixes multiplied by AMX, for bfloat16 and int8.

Of what is read one part is multiplied (`parts.py`), which is all of a bfloat16, and of a float32 as much as products in
int8 make worth keeping; a weight has two, which hold it to 16 bits. Sums are float32 as there. Float32 with three parts
of each takes as long as by vectors.
"""

from __future__ import annotations

from functools import partial

import torch

from tercet.nn.jit.attention_kernel import KEYS, VECTORS, Attention, Block
from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.parts import STEP, multiply_parts, parts_of
from tercet.nn.jit.tiles import ROWS, TILE, WORDS, Tiles
from tercet.nn.jit.values import Int, Memory, Vector

_WEIGHT_PARTS = 2
_STEPS = KEYS // STEP  # of a block of keys


@Kernel
def tile_attention_kernel(code: Code, dims: int, dtype: torch.dtype, windowed: bool, biased: bool) -> None:
    """Write attention for heads of `dims` numbers, a multiple of 32, whose products are of bfloat16."""
    TileAttention(code, dims, dtype, windowed, biased).write()


class TileAttention(Attention):
    """Writes the code: 32 keys by 32 queries at a time, then 32 numbers of a head by these queries."""

    def __init__(self, code: Code, dims: int, dtype: torch.dtype, windowed: bool, biased: bool) -> None:
        super().__init__(code, dims, dtype, windowed, biased)
        self.tiles, self.steps = Tiles(code), dims // STEP
        self.all_query_tiles = code.scratch(self.blocks * self.steps * VECTORS * TILE)
        self.key_tiles, self.value_tiles = (code.scratch(KEYS // ROWS * self.steps * TILE) for _ in range(2))
        self.weight_tiles = code.scratch(_STEPS * VECTORS * _WEIGHT_PARTS * TILE)
        self.fresh = code.scratch(2 * ROWS * self.width)

    def write(self) -> None:
        """Write a loop over all heads of all sequences."""
        self.tiles.set_up()
        super().write()
        self.tiles.release()

    def turn_to(self, block: Int) -> None:
        """Have what is kept for each block of queries be that of one."""
        super().turn_to(block)
        self.query_tiles = Memory(self.code, self.all_query_tiles.at(block * (self.steps * VECTORS * TILE)))

    def take_queries(self, block: Block) -> None:
        """Lay the queries side by side, then in tiles."""
        code = self.code
        super().take_queries(block)
        with code.loop(block.count, step=WORDS) as at, code.loop(self.steps) as step, code.loop(WORDS) as row:
            low, high = (self.queries.load((step * STEP + row + half) * self.width + at) for half in (0, WORDS))
            _put(self.query_tiles, low, high, step * VECTORS + at // WORDS, row)

    def take(self, block: Block, key: Int, keys: Int) -> None:
        """Lay keys one after another and values side by side, in tiles; the last value stands for those that lack."""
        code, token = self.code, block.start + key
        k_step, v_step = self.key_steps()
        with code.loop(keys) as i, code.loop(self.steps) as step:
            place = (token + i) * k_step + block.key_column + step * STEP
            low, high = (self.k.load(place + half) for half in (0, WORDS))
            _put(self.key_tiles, low, high, i // ROWS * self.steps + step, i % ROWS)
        with code.loop(keys, step=STEP) as first, code.loop(self.dims, step=ROWS) as dim:
            halves = []
            for half in (0, WORDS):
                tokens = (token + (first + half + lane).least(keys - 1) for lane in range(WORDS))
                rows = [self.v.load(at * v_step + block.key_column + dim) for at in tokens]
                halves.append(code.transpose(rows))
            for row, (low, high) in enumerate(zip(*halves, strict=True)):
                _put(self.value_tiles, low, high, dim // ROWS * _STEPS + first // STEP, code.number(row))

    def score(self, vectors: int, keys: Int) -> None:
        """Scores[key] = Σ keys[key, dim] · queries[dim]."""
        with self.code.loop(keys, step=2 * ROWS) as key:
            self._clear(2 * vectors)
            with self.code.loop(self.steps) as step:
                rows = [partial(_tile, self.key_tiles, (key // ROWS + i) * self.steps + step) for i in range(2)]
                columns = [partial(_tile, self.query_tiles, step * VECTORS + j) for j in range(vectors)]
                multiply_parts(self.tiles, rows, columns, (1, 1))
            self._give(self.scores, key, vectors)

    def weigh(self, vectors: int, block: Block, key: Int, keys: Int) -> None:
        """Scores ← weights, in tiles, and none of keys that lack."""
        code = self.code
        super().weigh(vectors, block, key, keys)
        for j in range(vectors):
            with code.loop(_even(keys), start=keys) as row:
                self.scores.store(code.constant(0.0), row * self.width + j * WORDS)
            with code.loop(keys, step=STEP) as first, code.loop(WORDS) as row:
                places = ((first + row + half) * self.width + j * WORDS for half in (0, WORDS))
                low, high = (self.scores.load(place) for place in places)
                _put(self.weight_tiles, low, high, (first // STEP * VECTORS + j) * _WEIGHT_PARTS, row, _WEIGHT_PARTS)

    def mix(self, vectors: int, keys: Int) -> None:
        """Mixed[dim] ← kept · mixed[dim] + Σ values[key, dim] · scores[key]."""
        code = self.code
        with code.loop(self.dims, step=2 * ROWS) as dim:
            self._clear(2 * vectors)
            with code.loop(_even(keys) // STEP) as step:
                rows = [partial(_tile, self.value_tiles, (dim // ROWS + i) * _STEPS + step) for i in range(2)]
                weights = [(step * VECTORS + j) * _WEIGHT_PARTS for j in range(vectors)]
                columns = [partial(_tile, self.weight_tiles, tile) for tile in weights]
                multiply_parts(self.tiles, rows, columns, (1, _WEIGHT_PARTS))
            self._give(self.fresh, code.number(0), vectors)
            for at in range(0, vectors * WORDS, WORDS):
                kept = self.kept.load(at)
                with code.loop(2 * ROWS) as row:
                    place, fresh = (dim + row) * self.width + at, self.fresh.load(row * self.width + at)
                    self.mixed.store(code.fma(self.mixed.load(place), kept, fresh), place)

    def _clear(self, count: int) -> None:
        for number in range(count):
            self.tiles.clear(number)

    def _give(self, memory: Memory, first: Int, vectors: int) -> None:
        """Write two rows of tiles to memory that is as wide as a block of queries, from a row on."""
        for i in range(2):
            for j in range(vectors):
                place = (first + i * ROWS) * self.width + j * WORDS
                self.tiles.store(i * vectors + j, memory, place, self.width)


def _even(keys: Int) -> Int:
    """Return how many keys fill steps."""
    return (keys + (STEP - 1)) // STEP * STEP


def _put(memory: Memory, low: Vector, high: Vector, tile: Int, row: Int, count: int = 1) -> None:
    """Write a row of so many parts' tiles, one after another."""
    for part, words in enumerate(parts_of(low, high, rounded=True)[:count]):
        memory.store(words, (tile + part) * TILE + row * WORDS)


def _tile(memory: Memory, tile: Int, part: int) -> tuple[Memory, Int]:
    return memory, (tile + part) * TILE
