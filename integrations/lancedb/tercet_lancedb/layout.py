"""`TableLayout`: how a table's vectors are made, as its schema's metadata keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from tercet.connect import connect
from tercet.errors import InvalidInputError
from tercet.types import Inference, Output
from tercet.vector_spec import Encoding, Fingerprint, VectorSpec, check_fingerprint
from tercet_lancedb import known
from tercet_lancedb.columns import COLUMNS, SPARSE_INDICES

MARK = "tercet_mark"  # what a row was made from; rows with another mark, or none, are embedded again

_METADATA = b"tercet"


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How a table's vectors are made.

    Attributes:
        spec: the models. fingerprint: of those that filled the table.
        text: column that is encoded. key: column that tells rows apart.
        inference: reference to what encodes. choices: how to reach it, as `ConnectChoices`.
        idf: whether the sparse vectors leave the inverse document frequency to the search, as BM25's do.
    """

    spec: VectorSpec
    fingerprint: Fingerprint
    text: str
    key: str
    inference: str
    choices: Mapping[str, Any]
    idf: bool

    def connect(self, inference: Inference | str | None = None, where: str = "the table") -> Inference:
        """Return what encodes, the given one or the stored one, if its vectors can be compared with the table's.

        Raises:
            ModelMismatchError: they cannot.
            TercetError: as `connect`.
        """
        choices: Any = self.choices
        found = connect(self.inference, **choices) if inference is None else connect(inference)
        known.check(found, self.spec, self.fingerprint, where)
        return found

    def check_same(self, other: TableLayout, where: str) -> None:
        """Raise unless rows made as `other` says belong into this table.

        Raises:
            ModelMismatchError: they were made by other models, or are other kinds of vectors.
            InvalidInputError: other columns are text or key.
        """
        check_fingerprint(self.fingerprint, other.fingerprint, where)
        if missing := [output for output in self.spec.outputs if output not in other.spec.outputs]:
            raise InvalidInputError(f"{where} has {missing[0]} vectors too; give a VectorSpec that makes all of them")
        for role in ("text", "key"):
            ours, theirs = getattr(self, role), getattr(other, role)
            if ours != theirs:
                raise InvalidInputError(f"{where} was filled with {role}={ours!r}, not {theirs!r}; give the same")

    def metadata(self) -> dict[bytes, bytes]:
        """Return what a schema stores."""
        return {_METADATA: json.dumps(asdict(self)).encode()}

    @staticmethod
    def is_in(schema: pa.Schema) -> bool:
        """Return whether a table's schema holds a layout."""
        return _METADATA in (schema.metadata or {})

    @classmethod
    def of(cls, schema: pa.Schema) -> TableLayout:
        """Return the layout that a table's schema holds.

        Raises:
            InvalidInputError: it holds none.
        """
        if not cls.is_in(schema):
            raise InvalidInputError(
                "this table's schema does not say how its vectors are made; make it with embed_table or schema_for, or "
                "use LanceDB's own search"
            )
        fields = json.loads(schema.metadata[_METADATA])
        given = {output: encoding for output, encoding in fields.pop("spec").items() if encoding is not None}
        encodings = {o: Encoding(**e) if isinstance(e, dict) else e for o, e in given.items()}
        return cls(spec=VectorSpec(**encodings), **fields)


def own_columns(outputs: tuple[Output, ...]) -> list[str]:
    """Return the names of the columns that are added to a table."""
    candidates = [SPARSE_INDICES] if "sparse" in outputs else []
    return [*(COLUMNS[output] for output in outputs), *candidates, MARK]


def plain_columns(schema: pa.Schema) -> list[str]:
    """Return the names of a table's columns without those that were added."""
    added = own_columns(TableLayout.of(schema).spec.outputs)
    return [name for name in schema.names if name not in added]
