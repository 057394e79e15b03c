"""The same collection in each of Qdrant's forms: local mode in memory and on disk, a server, and the engine itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient
from qdrant_edge import EdgeShard, UpdateOperation

from support.qdrant_server import qdrant_server
from tercet.types import Inference
from tercet_qdrant import CollectionSpec, embed_points
from tercet_qdrant.edge import edge_config, edge_points, edge_request

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "hello", "world", "numbers", "words", "tabs")


class Watched:
    """An engine, what it was asked to encode (output, side, number of texts), and the texts themselves."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: list[tuple[str, bool, int]] = []
        self.texts: list[str] = []

    def encode(self, model: str, items: Any, **keywords: Any) -> Any:
        """Take a note and encode."""
        self.calls.append((keywords["output_types"][0], keywords["is_query"], len(items)))
        self.texts += items
        return self.inner.encode(model, items, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def texts(count: int) -> list[str]:
    """Return texts of words that the tiny tokenisers know, each of another length, so that no two score the same."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 3 + i)) for i in range(count)]


def many(count: int) -> Iterator[dict[str, Any]]:
    """Yield documents, each with a text of its own."""
    for i in range(count):
        words = [WORDS[i // len(WORDS) ** k % len(WORDS)] for k in range(4)]
        yield {"id": f"document {i}", "text": " ".join([*words, f"number{i}"]), "payload": {"n": i}}


@contextmanager
def client_of(kind: str, folder: Path) -> Iterator[QdrantClient]:
    """Yield a client of ":memory:", "path" or "server"."""
    if kind == "server":
        with qdrant_server() as server:
            client = QdrantClient(**server.choices())
            yield client
            client.close()
        return
    client = QdrantClient(":memory:") if kind == ":memory:" else QdrantClient(path=str(folder / "store"))
    yield client
    client.close()


@contextmanager
def shard(
    folder: Path, spec: CollectionSpec, inference: Inference, documents: Sequence[Mapping[str, Any]]
) -> Iterator[EdgeShard]:
    """Yield the engine in this process, filled with the documents."""
    opened = EdgeShard.create(str(folder / "shard"), edge_config(spec, inference=inference))
    points = embed_points(documents, spec, inference=inference)
    opened.update(UpdateOperation.upsert_points(edge_points(points)))
    yield opened
    opened.close()


def asked(opened: EdgeShard, request: Any) -> list[tuple[Any, float]]:
    """Return the ids and scores that a shard gives for a request of `tercet_qdrant.query_points`."""
    return [(str(point.id), point.score) for point in opened.query(edge_request(request))]


def answered(points: Sequence[Any]) -> list[tuple[Any, float]]:
    """Return the ids and scores of a client's answer."""
    return [(str(point.id), point.score) for point in points]
