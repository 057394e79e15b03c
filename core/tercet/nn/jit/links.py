"""Links: which words of each function belong to the batch, for functions that are told of one batch after another."""

from __future__ import annotations

from typing import NamedTuple

from tercet.nn.jit.attention_kernel import AttentionWords
from tercet.nn.jit.layer_kernels import GateWords, RotateWords
from tercet.nn.jit.pairs import PairingWords
from tercet.nn.jit.pool_kernel import PoolWords
from tercet.nn.jit.product_kernel import ProductWords
from tercet.nn.jit.rounding import ByteProductWords, RoundingWords
from tercet.nn.jit.row_kernels import EmbedWords, NormWords, RmsWords, UnitWords
from tercet.nn.jit.tile_product import TileProductWords
from tercet.nn.jit.words import Words


class Given(NamedTuple):
    """What differs between two batches.

    Attributes:
        tokens: T. token_units: of work by rows. token_blocks, token_tiles: blocks of a product's rows, and in tiles.
        sequences, sequence_units, sequence_blocks, sequence_tiles: the same for B.
        extents, spans: addresses of `PackedBatch.extents` and `pooled_spans`.
        ids, positions, kinds, kinds_step: as in `words.Lookups`.
        cores: that compute.
    """

    tokens: int
    token_units: int
    token_blocks: int
    token_tiles: int
    sequences: int
    sequence_units: int
    sequence_blocks: int
    sequence_tiles: int
    extents: int
    spans: int
    ids: int
    positions: int
    kinds: int
    kinds_step: int
    cores: int


# Where rows are sequences, what is followed instead.
BY_SEQUENCE = {
    "tokens": "sequences",
    "token_units": "sequence_units",
    "token_blocks": "sequence_blocks",
    "token_tiles": "sequence_tiles",
}

# A word, which word of `Given` it is, and the word that this is multiplied by, if any.
Link = tuple[str, str, str | None]

_ROWS: tuple[Link, ...] = (("rows", "tokens", None), ("units", "token_units", None))
_PRODUCT: tuple[Link, ...] = (("rows", "tokens", None), ("cores", "cores", None))
LINKS: dict[type[Words], tuple[Link, ...]] = {
    EmbedWords: (*_ROWS, *((name, name, None) for name in ("ids", "positions", "kinds", "kinds_step"))),
    NormWords: _ROWS,
    RmsWords: _ROWS,
    UnitWords: _ROWS,
    RotateWords: _ROWS,
    GateWords: _ROWS,
    PairingWords: _ROWS,
    PoolWords: (("spans", "spans", None), ("units", "sequences", None)),
    AttentionWords: (("extents", "extents", None), ("units", "sequences", "heads")),
    RoundingWords: _ROWS,
    ByteProductWords: (("rows", "tokens", None), ("units", "token_blocks", "panels")),
    ProductWords: (*_PRODUCT, ("units", "token_blocks", "panels")),
    TileProductWords: (*_PRODUCT, ("units", "token_tiles", "panels")),
}
