"""A process that fills a collection and may be killed anywhere in it; run as a program, it needs no torch.

    python chroma_ingest.py FOLDER INFERENCE KIND COUNT EDITION [FATAL]

It prints how many documents are done. FATAL names a call of the adapter at which it kills itself as `kill -9` does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import chromadb

from tercet import VectorSpec
from tercet_chroma import HybridCollection, TercetEmbeddingFunction, add_batched
from tercet_chroma.sidecar import Sidecar

MODEL = "tiny/bert"
SPEC = VectorSpec(dense=MODEL, sparse="bm25")


def texts(count: int, edition: int) -> list[str]:
    """Return the documents; those of a later edition differ from the first in every hundredth."""
    return [f"hello number {i}" + (f" edition {edition}" if edition and i % 100 == 0 else "") for i in range(count)]


def ids(count: int) -> list[str]:
    """Return the documents' ids."""
    return [f"d{i}" for i in range(count)]


def opened(folder: Path | str, inference: str, kind: str) -> tuple[Any, Any]:
    """Return a client on the folder, and the collection."""
    client = chromadb.PersistentClient(folder)
    if kind == "batched":
        return client, client.get_or_create_collection(
            "docs", embedding_function=TercetEmbeddingFunction(MODEL, inference)
        )
    return client, HybridCollection(client, "docs", SPEC, inference)


def fill(client: Any, collection: Any, kind: str, count: int, edition: int, progress: Any = None) -> None:
    """Bring all documents of an edition into the collection."""
    if kind == "batched":
        add_batched(client, collection, texts(count, edition), ids=ids(count), progress=progress)
    else:
        getattr(collection, kind)(ids(count), documents=texts(count, edition), progress=progress)


def ingest(folder: Path, inference: str, kind: str, count: int, edition: int = 0, fatal: str = "") -> Any:
    """Return the process."""
    arguments = [str(folder), inference, kind, str(count), str(edition), fatal]
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)


def _kill(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    folder, inference, kind, count, edition, fatal = sys.argv[1:]
    client, collection = opened(folder, inference, kind)
    if fatal:
        where = Sidecar if fatal == "put" else type(client.get_or_create_collection("other", embedding_function=None))
        setattr(where, fatal, _kill)
    fill(client, collection, kind, int(count), int(edition), lambda done, total: print(done, flush=True))


if __name__ == "__main__":
    main()
