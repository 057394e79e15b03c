"""Claim: Tercet fills a Qdrant collection at twice the rate of sentence-transformers' vectors in the client's upload.

Both make the same kind of collection with the bundled all-MiniLM-L6-v2, end to end from texts to stored points, each in
a process of its own; rounds are interleaved. The share of time outside the model is what an upload takes beyond
encoding the same texts alone, in a third process.

    python benchmarks/ingest_qdrant.py [--texts 2000] [--rounds 5] [--url http://localhost:6333]

Without a URL the store is the client's local mode in memory, which takes its time from the same two hands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import encode
from corpus import mixed_texts
from facts import facts
from harness import Contender, interleave, options, serve, started, totals
from ingest import rows
from outcome import finish

NAME = "tercet-benchmark"


class Store:
    """A client of the store, and a collection that each run begins with empty."""

    def __init__(self, url: str) -> None:
        from qdrant_client import QdrantClient

        self.client = QdrantClient(url)

    def empty(self) -> None:
        if self.client.collection_exists(NAME):
            self.client.delete_collection(NAME)


class Tercet:
    """`upload`, with its defaults."""

    def __init__(self, url: str) -> None:
        self.url = url

    def load(self) -> None:
        from tercet import Engine, VectorSpec

        self.store, self.engine, self.spec = (
            Store(self.url),
            Engine(precision="float32"),
            VectorSpec(dense=encode.MODEL),
        )
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        from tercet_qdrant import ensure_collection, upload

        self.store.empty()
        ensure_collection(self.store.client, NAME, self.spec, inference=self.engine)
        documents = ({"id": i, "text": text} for i, text in enumerate(texts))
        report = upload(self.store.client, NAME, documents, self.spec, inference=self.engine)
        assert report.uploaded == self.store.client.count(NAME).count == len(texts)


class Encoding(encode.Tercet):
    """The engine alone: what an upload cannot be faster than."""

    def __init__(self, url: str) -> None:
        pass


class SentenceTransformers(encode.SentenceTransformers):
    """The usual path: `SentenceTransformer.encode`, then `upload_collection` with its vectors and payloads."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)

    def run(self, texts: Sequence[str]) -> Any:
        from qdrant_client import models

        self.store.empty()
        vectors = models.VectorParams(size=384, distance=models.Distance.COSINE)
        self.store.client.create_collection(NAME, vectors_config={"dense": vectors})
        made = super().run(texts)
        payload = [{"text": text} for text in texts]
        self.store.client.upload_collection(NAME, {"dense": made}, payload, ids=range(len(texts)), wait=True)
        assert self.store.client.count(NAME).count == len(texts)


CONTENDERS: dict[str, Callable[[str], Contender]] = {
    "tercet": Tercet,
    "sentence-transformers": SentenceTransformers,
    "tercet, encoding alone": Encoding,
}


def main() -> int:
    parser = options(__doc__, CONTENDERS, texts=2000, rounds=5)
    parser.add_argument("--url", default=":memory:", help="of a Qdrant server")
    asked = parser.parse_args()
    if asked.child:
        serve(partial(CONTENDERS[asked.child], asked.url))
        return 0
    with started(__file__, CONTENDERS, ["--url", asked.url]) as children:
        seconds = totals(interleave(children, [mixed_texts(asked.texts)], asked.rounds))
    print(f"{'':26}{'documents/s':>12}{'load s':>9}{'peak MB':>9}")
    for name, child in children.items():
        print(f"{name:26}{asked.texts / median(seconds[name]):12.1f}{child.load_s:9.2f}{child.peak_mb:9.0f}")
    made = facts(["tercet", "qdrant-client", "torch", "sentence-transformers", "transformers"])
    return finish(rows("Qdrant", "upload_collection", seconds, asked.texts), made, asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
