"""`Sender`: requests to Weaviate that outlast its absence, and find out which of their objects it refuses."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from weaviate.classes.data import DataObject
from weaviate.collections import Collection
from weaviate.exceptions import (
    WeaviateBatchError,
    WeaviateConnectionError,
    WeaviateInsertManyAllFailedError,
    WeaviateRetryError,
    WeaviateTimeoutError,
)

from tercet.errors import TercetError, TransportError
from tercet.patience import patiently

T = TypeVar("T")
Object = DataObject[Any, Any]
Refused = tuple[Object, str]

_PAUSES_S = (0.2, 1.0)  # before what was refused is tried alone, and once more
_ABSENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Failure:
    """An object that Weaviate refused, also by itself: its id and properties, and Weaviate's words."""

    uuid: str
    properties: dict[str, Any]
    message: str


@dataclass(slots=True)
class Sender:
    """Sends objects to a collection, and counts what became of them.

    Attributes:
        collection: where to.
        patience_s: how long to go on trying while Weaviate cannot be reached.
        max_failures: how many objects may be refused before it gives up.
        written: objects stored.
        failed: objects refused.
    """

    collection: Collection[Any, Any]
    patience_s: float
    max_failures: int
    written: int = 0
    failed: list[Failure] = field(default_factory=list)

    def send(self, objects: Sequence[Object]) -> None:
        """Store the objects; those refused are tried alone before they count as failed.

        Raises:
            TransportError: Weaviate could not be reached.
            TercetError: more objects than `max_failures` were refused.
        """
        refused = self._refused(objects)
        for pause in _PAUSES_S:
            if refused:
                time.sleep(pause)
                refused = self._alone(each for each, _ in refused)
        self.failed += [Failure(str(each.uuid), each.properties, message) for each, message in refused]
        self.written += len(objects) - len(refused)

    def _alone(self, objects: Iterable[Object]) -> list[Refused]:
        still: list[Refused] = []
        for each in objects:
            still += self._refused([each])
            if len(still) + len(self.failed) > self.max_failures:
                raise TercetError(
                    f"Weaviate refused more than {self.max_failures} objects, the last with: {still[-1][1]}. What was "
                    "written stays; mend the cause and run the same import again, it goes on from there"
                )
        return still

    def _refused(self, objects: Sequence[Object]) -> list[Refused]:
        """Return the objects that Weaviate did not store, and why; a request refused as a whole is sent in halves."""
        try:
            result = while_away(lambda: self.collection.data.insert_many(objects), self.patience_s)
        except WeaviateInsertManyAllFailedError as error:
            return [(each, error.message) for each in objects]
        except WeaviateBatchError as error:
            if len(objects) == 1:
                return [(objects[0], error.message)]
            half = len(objects) // 2
            return self._refused(objects[:half]) + self._refused(objects[half:])
        return [(objects[i], error.message) for i, error in result.errors.items()]


def while_away(call: Callable[[], T], patience_s: float) -> T:
    """Return what the call returns, made again and again while Weaviate cannot be reached.

    Calls must be such that twice is as good as once: one whose answer was lost may have been carried out.

    Raises:
        TransportError: it could not be reached for `patience_s`, and the client's own attempts.
        WeaviateBaseError: whatever else went wrong.
    """
    return patiently(call, patience_s, lambda error: 0.0 if _unreachable(error) else None, _away)


def _away(error: BaseException) -> TransportError:
    return TransportError(
        f"Weaviate could not be reached ({_words(error)}). What was written stays; run the same import "
        "again once it is back, it goes on from there"
    )


def _words(error: BaseException) -> str:
    """Return what an error says, of gRPC's many lines the one that matters."""
    details = re.search(r'details = "([^"]*)"', str(error))
    return details[1] if details else str(error).strip()


def _unreachable(error: BaseException) -> bool:
    """Return whether the server was not there, or did not answer in time; the client hides both behind its errors."""
    if isinstance(error, WeaviateConnectionError | WeaviateRetryError | WeaviateTimeoutError):
        return True
    cause = error.__context__
    code = getattr(cause, "code", None)  # of a gRPC error
    return isinstance(cause, WeaviateRetryError) or (callable(code) and code().name in _ABSENT)
