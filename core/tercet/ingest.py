"""What every bulk load into a database needs: batches, the next of them made ahead, and marks to resume by."""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import uuid
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from tercet.vector_spec import Fingerprint

T = TypeVar("T")

_FAREWELL_S = 5.0  # how long a caller that stops early waits for the item in hand
_IDS = uuid.UUID(
    "1c6a54b0-3f5c-5d0e-9c1b-7e1f3a0d5c2b"
)  # the namespace of ids made from texts; changing it changes all


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one perhaps shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def ahead(items: Iterable[T], depth: int = 1) -> Generator[T]:
    """Yield the items, up to `depth` of them made on another thread while the caller is busy with the one before.

    An error in the making is raised here, after the items before it. A caller that stops early, or fails, ends the
    thread once its current item is made; a generator among the items is then closed on that thread.
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    gone = threading.Event()

    def put(kind: str, value: Any = None) -> bool:
        while not gone.is_set():
            try:
                made.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        iterator = iter(items)
        try:
            if all(put("item", item) for item in iterator):
                put("end")
        except BaseException as error:
            put("error", error)
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=make, name="tercet-ahead", daemon=True)
    thread.start()
    try:
        while (taken := made.get())[0] == "item":
            yield taken[1]
        if taken[0] == "error":
            raise taken[1]
    finally:
        gone.set()
        thread.join(_FAREWELL_S)


def document_id(text: str) -> str:
    """Return an id made from a text, always the same one: a UUID, version 5."""
    return str(uuid.uuid5(_IDS, text))


def digest(text: str, fingerprint: Fingerprint) -> str:
    """Return a mark of what a stored vector was made from: the text, and the models as they were.

    A document whose mark is in the database already has the vector that encoding it again would give.
    """
    decisive = {
        output: {name: value for name, value in one.items() if name not in ("model", "revision")}
        for output, one in fingerprint.items()
    }
    made_by = json.dumps(decisive, sort_keys=True, default=str)
    return hashlib.blake2b(f"{made_by}\0{text}".encode(), digest_size=16).hexdigest()
