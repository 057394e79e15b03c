"""A call cut into requests: which items go together, what is asked of them, and what has become of it so far."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tercet.client.exchange import Steps, Wire, exchange
from tercet.client.parts import Parts
from tercet.deadline import Deadline
from tercet.errors import DeadlineExceededError, TercetError, TransportError
from tercet.types import Embeddings, Item, Progress, Scores
from tercet.wire.requests import request_body

R = TypeVar("R", Embeddings, Scores)

_ITEMS = 1024
_CHARACTERS, _CHARACTERS_OF_TOKEN_VECTORS = 1 << 19, 1 << 16  # token vectors are a hundred times as long as their text


def cut(items: Sequence[Item], *, token_vectors: bool) -> Iterator[slice]:
    """Yield the parts of a call: as many items as make a fair request, at least one each."""
    limit = _CHARACTERS_OF_TOKEN_VECTORS if token_vectors else _CHARACTERS
    first = size = 0
    for i, item in enumerate(items):
        length = len(item.text) if item.text is not None else 4 * len(item.input_ids or ())
        if i > first and (size + length > limit or i - first == _ITEMS):
            yield slice(first, i)
            first, size = i, 0
        size += length
    yield slice(first, len(items))


@dataclass
class Plan(Generic[R]):
    """A call of n items as requests for some of them each.

    Attributes:
        document: what all the requests share. read: the result in an answer.
        cuts: which items each request has. parts: where their results go.
        deadline: of the whole call. progress: told after every request how many items are done.
        done: how many items have their result.
    """

    wire: Wire
    path: str
    items: Sequence[Item]
    document: Mapping[str, Any]
    read: Callable[[bytes], R]
    cuts: Sequence[slice]
    parts: Parts[R]
    deadline: Deadline
    progress: Progress | None
    done: int = 0

    def steps(self, place: slice) -> Steps[R]:
        """Ask for the result of some items; an error about one of them names its place in the whole call."""
        items, wire = self.items[place], self.wire
        body = request_body(items, self.document)
        try:
            result = yield from exchange(
                wire, "POST", self.path, self.read, self.deadline, body=body, accept=wire.answers
            )
        except TercetError as error:
            raise _moved(error, place.start) from error.__cause__
        if len(result.tokens) != len(items):
            raise TransportError(f"the server answered with {len(result.tokens)} results for {len(items)} items")
        return result

    def report(self) -> None:
        """Tell the caller how many items are done."""
        if self.progress is not None:
            self.progress(self.done, len(self.items))

    def put(self, place: slice, result: R) -> None:
        """Keep the result of some items."""
        self.parts.put(place, result)
        self.done += place.stop - place.start
        self.report()

    def failure(self, error: TercetError) -> TercetError:
        """Return what to raise for an error in one of the requests: the engine's own words for a missed deadline."""
        if not isinstance(error, DeadlineExceededError) or self.deadline.at is None:
            return error
        return self.deadline.error(f"with {self.done:,} of {len(self.items):,} items done")


_ITEM = re.compile(r"item (\d+)\b")


def _moved(error: TercetError, by: int) -> TercetError:
    """Return the error with the index of its item, if it names one, counted from further up front."""
    found = _ITEM.match(error.message)
    if found is None or by == 0:
        return error
    message = f"item {int(found[1]) + by}{error.message[found.end() :]}"
    return type(error)(message, retry_after_s=error.retry_after_s)
