"""Attention over packed sequences of any lengths in one call, for CPUs: softmax as the scores come, nothing padded.

A vector holds one number of as many queries as it has lanes, so that all but the turning of queries and results is the
same operation in every lane. For each block of queries, keys go by in blocks that stay in the first cache, with the
largest score, the sum and the mix so far kept for each query (Milakov & Gimelshein 2018, arXiv:1805.02867; Dao et al.
2022, arXiv:2205.14135). Computed in float32 whatever the type of what is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.values import BFloat16Memory, Int, Memory, Vector

KEYS = 256  # keys a block
VECTORS = 2  # of queries a block: more spare loads, but make more code to compile
BLOCKS = 8  # of queries by which each block of keys goes, where there are several: to take keys is slow
_NO_SCORE = -1e30  # the largest score before any is known: finite, so that a difference from it is a number
_NO_SUM = 1e-30  # a sum below it means that nothing was attended to


class AttentionWords(NamedTuple):
    """The kernel's words.

    Attributes:
        q, k, v, out: addresses. q_step, k_step, v_step: numbers from a token to the next.
        heads: of queries. group: of them that share keys.
        extents: address of `PackedBatch.extents`.
        left, right: tokens that are seen on either side; read by a windowed kernel alone.
        scale: of scores, for powers of 2, the bits of a float32.
        bias: address of what is added to scores by head and distance, (heads, bias_step) float32, read by a biased
            kernel alone; the number for distance 0 from a key to its query lies at bias_middle.
        bias_share: the bits of a float32, what it is multiplied by.
        units, next, done: see `words.Words`; a unit is a head of a sequence.
    """

    q: int
    k: int
    v: int
    out: int
    q_step: int
    k_step: int
    v_step: int
    heads: int
    group: int
    extents: int
    left: int
    right: int
    scale: int
    bias: int
    bias_step: int
    bias_middle: int
    bias_share: int
    units: int
    next: int = 0
    done: int = 0


_WORD = AttentionWords(*range(len(AttentionWords._fields)))  # where each is


@dataclass(frozen=True)
class Block:
    """A block of one head's queries, or several that follow each other.

    Attributes:
        start: the sequence's first token. length: its tokens. attended: its leading tokens that may be seen.
        first: the block's first query in the sequence. count: queries.
        column, key_column: where the head's numbers begin in a token's, and those of its keys.
        bias: where the number for distance 0 lies.
    """

    start: Int
    length: Int
    attended: Int
    first: Int
    count: Int
    column: Int
    key_column: Int
    bias: Int


@Kernel
def attention_kernel(code: Code, dims: int, dtype: torch.dtype, windowed: bool, biased: bool) -> None:
    """Write attention for heads of `dims` numbers, which fill vectors, in float32 or bfloat16.

    Without `windowed` each token sees all of its sequence that may be attended to; if it is `biased`, distances count.
    """
    Attention(code, dims, dtype, windowed, biased).write()


class Attention:
    """Writes the code. Blocks of queries, of scores and of results are kept with queries along the rows."""

    def __init__(self, code: Code, dims: int, dtype: torch.dtype, windowed: bool, biased: bool) -> None:
        kind = BFloat16Memory if dtype == torch.bfloat16 else Memory
        self.code, self.dims, self.windowed, self.biased = code, dims, windowed, biased
        self.q, self.k, self.v, self.out = (kind(code, code.pointer(word)) for word in _WORD[:4])
        self.rows = 8 if code.registers >= 32 else 4  # of a tile, which with its `VECTORS` stays in registers
        self.width = VECTORS * code.lanes
        self.blocks = 1 if windowed else BLOCKS  # in a window each block sees keys of its own
        sizes = (dims * self.width, dims * self.width, self.width, self.width)
        self.of_blocks = [(code.scratch(self.blocks * size), size) for size in sizes]
        self.scores = code.scratch(KEYS * self.width)
        self.keys, self.values = code.scratch(KEYS * dims), code.scratch(KEYS * dims)
        self.kept, self.square = code.scratch(self.width), code.scratch(code.lanes**2)
        self.scale = code.scalar(_WORD.scale)
        self.bias, self.bias_share = Memory(code, code.pointer(_WORD.bias)), code.scalar(_WORD.bias_share)

    def write(self) -> None:
        """Write a loop over all heads of all sequences; threads that run it share them out."""
        code, heads, extents = self.code, self.code.word(_WORD.heads), self.code.words(_WORD.extents)
        with code.shared_loop(_WORD) as unit:
            sequence, head = unit // heads, unit % heads
            start, length, attended = (extents(sequence * 3 + i) for i in range(3))
            key_column = head // code.word(_WORD.group) * self.dims
            bias = head * code.word(_WORD.bias_step) + code.word(_WORD.bias_middle)
            most = code.number(self.blocks * self.width).where(attended > KEYS, code.number(self.width))
            with code.loop(length, step=most) as first:
                count = (length - first).least(most)
                self._attend(Block(start, length, attended, first, count, head * self.dims, key_column, bias))

    def _attend(self, blocks: Block) -> None:
        """Write the attention of the queries of a block, or of several that follow each other and see the same keys."""
        with self._each(blocks) as block:
            self.take_queries(block)
            self._begin()
        low, high = self._seen(blocks)
        with self.code.loop(high, start=low, step=KEYS) as key:
            keys = (high - key).least(KEYS)
            self._take_keys(blocks, key, keys)
            with self._each(blocks) as block, self.code.either(block.count > self.code.lanes) as branches:
                for vectors, branch in zip((2, 1), branches, strict=True):
                    with branch:
                        self.score(vectors, keys)
                        self.weigh(vectors, block, key, keys)
                        self.mix(vectors, keys)
        with self._each(blocks) as block:
            self._give_mixed(block)

    @contextmanager
    def _each(self, blocks: Block) -> Iterator[Block]:
        """Repeat what follows for each of the blocks, with what is kept for it."""
        with self.code.loop(blocks.count, step=self.width) as at:
            self.turn_to(at // self.width)
            yield replace(blocks, first=blocks.first + at, count=(blocks.count - at).least(self.width))

    def turn_to(self, block: Int) -> None:
        """Have what is kept for each block of queries be that of one."""
        kept = (Memory(self.code, memory.at(block * size)) for memory, size in self.of_blocks)
        self.queries, self.mixed, self.largest, self.sums = kept

    def _begin(self) -> None:
        code, lanes = self.code, self.code.lanes
        for at in range(0, self.width, lanes):
            self.largest.store(code.constant(_NO_SCORE), at)
            self.sums.store(code.constant(0.0), at)
        with code.loop(self.dims * self.width, step=lanes) as place:
            self.mixed.store(code.constant(0.0), place)

    def _seen(self, block: Block) -> tuple[Int, Int]:
        """Return the first key that the block sees, and one past the last."""
        if not self.windowed:
            return self.code.number(0), block.attended
        right, left = self.code.word(_WORD.right), self.code.word(_WORD.left)
        return (block.first - left).most(0), (block.first + block.count + right).least(block.attended)

    def take_queries(self, block: Block) -> None:
        """Lay the queries side by side; lanes without one repeat the last."""
        code, lanes, step = self.code, self.code.lanes, self.code.word(_WORD.q_step)
        last = block.length - 1
        with code.loop(block.count, step=lanes) as at:
            tokens = [block.start + (block.first + at + lane).least(last) for lane in range(lanes)]
            places = [token * step + block.column for token in tokens]
            with code.loop(self.dims, step=lanes) as dim:
                columns = code.transpose([self.q.load(place + dim) for place in places])
                for i, column in enumerate(columns):
                    self.queries.store(column, (dim + i) * self.width + at)

    def _take_keys(self, block: Block, key: Int, keys: Int) -> None:
        """Take keys and values; where they are one block, once for all queries of a sequence."""
        if self.windowed:
            self.take(block, key, keys)
            return
        with self.code.when(self.code.b.or_(block.attended > KEYS, self.code.number(1) > block.first)):
            self.take(block, key, keys)

    def key_steps(self) -> tuple[Int, Int]:
        """Return how many numbers are from a token's keys to the next's, and from its values."""
        return self.code.word(_WORD.k_step), self.code.word(_WORD.v_step)

    def take(self, block: Block, key: Int, keys: Int) -> None:
        """Lay keys and values one after another, and zeros after them to fill a tile."""
        code, token, dims = self.code, block.start + key, self.dims
        with code.loop(keys) as i:
            for source, step, target in zip((self.k, self.v), self.key_steps(), (self.keys, self.values), strict=True):
                place = (token + i) * step + block.key_column
                with code.loop(dims, step=code.lanes) as dim:
                    target.store(source.load(place + dim), i * dims + dim)
        with code.loop((keys + (self.rows - 1)) // self.rows * self.rows * dims, keys * dims, code.lanes) as at:
            self.keys.store(code.constant(0.0), at)

    def score(self, vectors: int, keys: Int) -> None:
        """Scores[key] = Σ keys[key, dim] · queries[dim]."""
        with self.code.loop(keys, step=self.rows) as key:
            tile = _Tile(self, vectors, self.scores, key)
            tile.multiply(self.dims, lambda row, dim: self.keys.broadcast((key + row) * self.dims + dim), self.queries)
            tile.store()

    def weigh(self, vectors: int, block: Block, key: Int, keys: Int) -> None:
        """Scores ← 2 to the power of scale · (scores − largest); sums and `kept` follow."""
        code = self.code
        for at in range(0, vectors * code.lanes, code.lanes):
            largest = code.variable(self.largest.load(at))
            with code.loop(keys) as i:
                score = self.scores.load(i * self.width + at)
                if self.biased:
                    bias = self.bias.load(block.bias + block.first + at - key - i)
                    score = code.fma(bias, self.bias_share, score)
                if self.windowed:
                    score = score.where(self._visible(block, key + i, at), code.constant(-math.inf))
                if self.biased or self.windowed:
                    self.scores.store(score, i * self.width + at)
                largest.store(score.at_least(largest.load()))
            kept = ((self.largest.load(at) - largest.load()) * self.scale).exp2()
            total = code.variable(self.sums.load(at) * kept)
            with code.loop(keys) as i:
                weight = ((self.scores.load(i * self.width + at) - largest.load()) * self.scale).exp2()
                self.scores.store(weight, i * self.width + at)
                total.store(total.load() + weight)
            for memory, vector in ((self.largest, largest.load()), (self.sums, total.load()), (self.kept, kept)):
                memory.store(vector, at)

    def _visible(self, block: Block, key: Int, at: int) -> Any:
        """Return the mask of the queries from lane `at` on whose window the key is in."""
        left, right = self.code.word(_WORD.left), self.code.word(_WORD.right)
        return self.code.near(key - block.first - at, left, left + right)

    def mix(self, vectors: int, keys: Int) -> None:
        """Mixed[dim] ← kept · mixed[dim] + Σ values[key, dim] · scores[key]."""
        with self.code.loop(self.dims, step=self.rows) as dim:
            tile = _Tile(self, vectors, self.mixed, dim)
            tile.load(self.kept)
            tile.multiply(keys, lambda row, key: self.values.broadcast(key * self.dims + dim + row), self.scores)
            tile.store()

    def _give_mixed(self, block: Block) -> None:
        """Write mixed / sums, turned back; a query that saw nothing gets about nothing."""
        code, lanes, step = self.code, self.code.lanes, self.code.word(_WORD.heads) * self.dims
        with code.loop(block.count, step=lanes) as at:
            share = code.constant(1.0) / self.sums.load(at).at_least(code.constant(_NO_SUM))
            token = block.start + block.first + at
            with code.loop(self.dims, step=lanes) as dim:
                columns = [self.mixed.load((dim + i) * self.width + at) * share for i in range(lanes)]
                for i, row in enumerate(code.transpose(columns)):
                    self.square.store(row, i * lanes)
                with code.loop((block.count - at).least(lanes)) as query:
                    self.out.store(self.square.load(query * lanes), (token + query) * step + block.column + dim)


class _Tile:
    """Some rows of a memory that is as wide as a block of queries, held in registers while products are added."""

    def __init__(self, kernel: Attention, vectors: int, memory: Memory, first: Int) -> None:
        self.kernel, self.memory, self.first = kernel, memory, first
        self.columns = range(0, vectors * kernel.code.lanes, kernel.code.lanes)
        zero = kernel.code.constant(0.0)
        self.parts = {(row, at): kernel.code.variable(zero) for row in range(kernel.rows) for at in self.columns}

    def load(self, factors: Memory) -> None:
        """Fetch the rows, times a factor for each column."""
        for (row, at), part in self.parts.items():
            part.store(self.memory.load(self._place(row, at)) * factors.load(at))

    def multiply(self, count: int | Int, weight: Callable[[int, Int], Vector], columns: Memory) -> None:
        """Add Σ weight(row, i) · columns[i] to each row."""
        code = self.kernel.code
        with code.loop(count) as i:
            vectors = {at: columns.load(i * self.kernel.width + at) for at in self.columns}
            for row in range(self.kernel.rows):
                factor = weight(row, i)
                for at, vector in vectors.items():
                    part = self.parts[row, at]
                    part.store(code.fma(factor, vector, part.load()))

    def store(self) -> None:
        """Write the rows back."""
        for (row, at), part in self.parts.items():
            self.memory.store(part.load(), self._place(row, at))

    def _place(self, row: int, at: int) -> Int:
        return (self.first + row) * self.kernel.width + at
