"""A process that embeds a table, to be killed on its way: `python -m support.lancedb_ingest PLACE MODEL COUNT`."""

from __future__ import annotations

import sys

import lancedb

from support.lancedb_tables import rows
from tercet import VectorSpec
from tercet_lancedb import Embedded, embed_table

BATCH = 512


def main(place: str, model: str, count: str) -> None:
    """Embed the rows, saying after each batch how many are done."""

    def say(done: Embedded) -> None:
        print(done.written, done.unchanged, flush=True)

    spec = VectorSpec(dense=model, sparse="bm25")
    embed_table(
        lancedb.connect(place),
        "docs",
        rows(int(count)),
        spec,
        batch_size=BATCH,
        progress=say,
        device="cpu",
        precision="float32",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
