"""What a Weaviate server keeps: schema and objects, in memory and in a file if asked, and exact search over them.

Objects are kept as the messages that the client sent, and decoded by the layout that Weaviate documents. What the real
server refuses is refused: unknown collections and vectors, other dimensions than before, a number for a text.
"""

from __future__ import annotations

import json
import math
import re
import struct
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from weaviate.proto.v1 import base_pb2, base_search_pb2, batch_pb2

Filters = base_pb2.Filters
Hybrid = base_search_pb2.Hybrid

_BM25_K1, _BM25_B, _RANK_K, _DEPTH = 1.2, 0.75, 60, 100
_INDEX = {
    "cleanupIntervalSeconds": 300,
    "distance": "cosine",
    "dynamicEfMin": 100,
    "dynamicEfMax": 500,
    "dynamicEfFactor": 8,
    "ef": -1,
    "efConstruction": 128,
    "filterStrategy": "sweeping",
    "flatSearchCutoff": 40_000,
    "maxConnections": 32,
    "skip": False,
    "vectorCacheMaxObjects": 1_000_000_000_000,
}
_MULTIVECTOR = {
    "enabled": True,
    "aggregation": "maxSim",
    "muvera": {"enabled": False, "ksim": 4, "dprojections": 16, "repetitions": 10},
}
_COLLECTION = {
    "invertedIndexConfig": {
        "bm25": {"b": _BM25_B, "k1": _BM25_K1},
        "cleanupIntervalSeconds": 60,
        "stopwords": {"preset": "en", "additions": None, "removals": None},
    },
    "replicationConfig": {"factor": 1},
    "shardingConfig": {
        "virtualPerPhysical": 128,
        "desiredCount": 1,
        "actualCount": 1,
        "desiredVirtualCount": 128,
        "actualVirtualCount": 128,
        "key": "_id",
        "strategy": "hash",
        "function": "murmur3",
    },
}


def matrix(message: base_pb2.Vectors) -> np.ndarray:
    """Return a vector (d,) or a multivector (tokens, d) as the client packed it."""
    if message.type == base_pb2.Vectors.VECTOR_TYPE_MULTI_FP32:
        (dims,) = struct.unpack_from("<H", message.vector_bytes)
        return np.frombuffer(message.vector_bytes, "<f4", offset=2).reshape(-1, dims)
    return np.frombuffer(message.vector_bytes, "<f4")


@dataclass
class Stored:
    """One object: the message it came in, its properties and vectors."""

    message: batch_pb2.BatchObject
    properties: dict[str, Any]
    vectors: dict[str, np.ndarray]

    @classmethod
    def of(cls, message: batch_pb2.BatchObject) -> Stored:
        given = message.properties
        properties: dict[str, Any] = dict(given.non_ref_properties.items())
        for arrays in (given.text_array_properties, given.int_array_properties, given.boolean_array_properties):
            properties |= {each.prop_name: list(each.values) for each in arrays}
        return cls(message, properties, {each.name: matrix(each) for each in message.vectors})


@dataclass
class Class:
    """A collection: its schema, and its objects by id."""

    schema: dict[str, Any]
    objects: dict[str, Stored] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)

    def add(self, message: batch_pb2.BatchObject) -> None:
        """Store an object in the place of any other of its id.

        Raises:
            ValueError: as the server words it.
        """
        made = Stored.of(message)
        for name, vector in made.vectors.items():
            config = self.schema["vectorConfig"].get(name)
            if config is None:
                raise ValueError(f"vectorizer for target vector {name!r} is not configured")
            if (vector.ndim == 2) != config["vectorIndexConfig"]["multivector"]["enabled"]:
                raise ValueError(f"vector {name!r} has {vector.ndim} dimensions, which its index does not take")
            if self.dims.setdefault(name, vector.shape[-1]) != vector.shape[-1]:
                raise ValueError(f"vector lengths don't match: {self.dims[name]} vs {vector.shape[-1]}")
        self._check_types(made.properties)
        self.objects[str(uuid.UUID(message.uuid))] = made

    def _check_types(self, properties: dict[str, Any]) -> None:
        known = {each["name"]: each["dataType"][0] for each in self.schema["properties"]}
        kinds = {str: "text", bool: "boolean", float: "number", list: "text[]"}
        for name, value in properties.items():
            if value is None:
                continue
            kind = kinds.get(type(value), "object")
            if name not in known:  # auto schema
                self.schema["properties"].append(with_defaults({"name": name, "dataType": [kind]}))
            elif known[name] != kind and not (known[name] == "int" and kind == "number"):
                raise ValueError(f"invalid {known[name]} property {name!r} on class: not a {known[name]}, but {kind}")


def with_defaults(described: dict[str, Any]) -> dict[str, Any]:
    """Return a property's schema with what the server adds."""
    text = described["dataType"][0] == "text"
    return {
        **described,
        "indexFilterable": described.get("indexFilterable", True),
        "indexSearchable": described.get("indexSearchable", text),
        "tokenization": described.get("tokenization", "word" if text else None),
    }


class Store:
    """All collections. With a file, what was acknowledged is there for the next store that opens it."""

    def __init__(self, path: Path | None = None) -> None:
        self.classes: dict[str, Class] = {}
        self.lock = threading.RLock()
        self._log: BinaryIO | None = None
        if path is not None:
            self._replay(path)
            self._log = path.open("ab")

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def define(self, schema: dict[str, Any]) -> None:
        """Make a collection, or give it another schema."""
        name = schema["class"]
        schema = {**_COLLECTION, **schema}
        schema["properties"] = [with_defaults(each) for each in schema.get("properties") or []]
        for config in schema.setdefault("vectorConfig", {}).values():
            index = _INDEX | config.get("vectorIndexConfig", {})
            index["multivector"] = _MULTIVECTOR | index.get("multivector", {"enabled": False})
            config["vectorIndexConfig"] = index
        with self.lock:
            if name in self.classes:
                self.classes[name].schema = schema
            else:
                self.classes[name] = Class(schema)
            self._write(b"S", json.dumps(schema).encode())

    def drop(self, name: str) -> None:
        with self.lock:
            self.classes.pop(name, None)
            self._write(b"D", name.encode())

    def add(self, messages: Iterable[batch_pb2.BatchObject]) -> dict[int, str]:
        """Store objects; return what was wrong with those that were not, by place."""
        errors: dict[int, str] = {}
        with self.lock:
            for i, message in enumerate(messages):
                try:
                    self._add(message)
                except ValueError as error:
                    errors[i] = str(error)
            if self._log is not None:
                self._log.flush()
        return errors

    def _add(self, message: batch_pb2.BatchObject) -> None:
        if message.collection not in self.classes:
            raise ValueError(f"could not find class {message.collection} in schema")
        self.classes[message.collection].add(message)
        self._write(b"O", message.SerializeToString(), flush=False)

    def _write(self, kind: bytes, content: bytes, *, flush: bool = True) -> None:
        if self._log is not None:
            self._log.write(kind + struct.pack("<I", len(content)) + content)
            if flush:
                self._log.flush()

    def _replay(self, path: Path) -> None:
        written = path.read_bytes() if path.exists() else b""
        at = 0
        while at < len(written):
            kind, size = written[at : at + 1], struct.unpack_from("<I", written, at + 1)[0]
            content = written[at + 5 : at + 5 + size]
            at += 5 + size
            if kind == b"S":
                self.define(json.loads(content))
            elif kind == b"D":
                self.drop(content.decode())
            else:
                self.add([batch_pb2.BatchObject.FromString(content)])


# ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def matches(filters: Filters, key: str, stored: Stored) -> bool:
    """Return whether an object passes.

    Raises:
        NotImplementedError: an operator that is not served here.
    """
    kind = Filters.Operator.Name(filters.operator).removeprefix("OPERATOR_")
    nested: dict[str, Callable[[Iterable[bool]], bool]] = {"AND": all, "OR": any, "NOT": lambda each: not any(each)}
    if kind in nested:
        return nested[kind](matches(each, key, stored) for each in filters.filters)
    name = filters.target.property
    found = key if name == "_id" else stored.properties.get(name)
    value = getattr(filters, filters.WhichOneof("test_value"))
    single: dict[str, Callable[[], bool]] = {
        "EQUAL": lambda: found == value,
        "NOT_EQUAL": lambda: found != value,
        "CONTAINS_ANY": lambda: found in value.values,
    }
    if kind not in single:
        raise NotImplementedError(f"filter operator {kind}")
    return single[kind]()


# ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def similarity(query: np.ndarray, document: np.ndarray) -> float:
    """Return the cosine of two vectors, or MaxSim of two multivectors, in double precision."""
    query, document = query.astype(np.float64), document.astype(np.float64)
    if query.ndim == 2:
        return float((query @ document.T).max(axis=1).sum())
    return float(query @ document / (np.linalg.norm(query) * np.linalg.norm(document)))


def nearest(objects: dict[str, Stored], name: str, query: np.ndarray) -> dict[str, float]:
    """Return all objects that have the vector by similarity, best first.

    Raises:
        ValueError: the query has other dimensions.
    """
    scores: dict[str, float] = {}
    for key, stored in objects.items():
        if name in stored.vectors:
            vector = stored.vectors[name]
            if vector.ndim != query.ndim or vector.shape[-1] != query.shape[-1]:
                raise ValueError(f"vector lengths don't match: {vector.shape} vs {query.shape}")
            scores[key] = similarity(query, vector)
    return _sorted(scores)


def keywords(schema: dict[str, Any], objects: dict[str, Stored], query: str, fields: Iterable[str]) -> dict[str, float]:
    """Return the objects that share a word with the query by BM25 over their searchable properties, best first."""
    searched = list(fields) or [each["name"] for each in schema["properties"] if each["indexSearchable"]]
    counts = {
        key: Counter(_words(" ".join(str(stored.properties.get(each, "")) for each in searched)))
        for key, stored in objects.items()
    }
    mean = sum(count.total() for count in counts.values()) / max(1, len(counts))
    scores: dict[str, float] = {}
    for word in set(_words(query)):
        holding = [key for key, count in counts.items() if count[word]]
        idf = math.log(1 + (len(counts) - len(holding) + 0.5) / (len(holding) + 0.5))
        for key in holding:
            often, length = counts[key][word], counts[key].total()
            weight = often * (_BM25_K1 + 1) / (often + _BM25_K1 * (1 - _BM25_B + _BM25_B * length / mean))
            scores[key] = scores.get(key, 0.0) + idf * weight
    return _sorted(scores)


def fused(vector: dict[str, float], words: dict[str, float], alpha: float, kind: int) -> dict[str, float]:
    """Return the two result lists as Weaviate fuses them: by relative scores unless ranks are asked for."""
    scores: dict[str, float] = {}
    for results, weight in ((words, 1 - alpha), (vector, alpha)):
        if weight == 0:
            continue
        top = dict(list(results.items())[:_DEPTH])
        values = _by_rank(top) if kind == Hybrid.FUSION_TYPE_RANKED else _relative(top)
        for key, value in values.items():
            scores[key] = scores.get(key, 0.0) + weight * value
    return _sorted(scores)


def _by_rank(results: dict[str, float]) -> dict[str, float]:
    return {key: 1 / (_RANK_K + rank) for rank, key in enumerate(results)}


def _relative(results: dict[str, float]) -> dict[str, float]:
    if not results:
        return {}
    low, high = min(results.values()), max(results.values())
    return {key: (value - low) / (high - low) if high > low else 1.0 for key, value in results.items()}


def _sorted(scores: dict[str, float]) -> dict[str, float]:
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
