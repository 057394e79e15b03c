"""What several dialects call their inputs: one text, several, or token ids in place of texts."""

from __future__ import annotations

from tercet.errors import InvalidInputError
from tercet.types import Item, ItemLike, Truncate

# A text, texts, one text's token ids, or a list of texts and lists of token ids.
Inputs = str | list[str | int | list[int]]


def items_of(inputs: Inputs) -> list[ItemLike]:
    """Return one item for each text or list of token ids.

    Raises:
        InvalidInputError: single token ids stand among texts.
    """
    if isinstance(inputs, str):
        return [inputs]
    if inputs and isinstance(inputs[0], int):
        return [Item(input_ids=[_token_id(value, i) for i, value in enumerate(inputs)])]
    return [_item(value, i) for i, value in enumerate(inputs)]


def truncation(truncate: bool | None, direction: str | None = None) -> Truncate:
    """Return which end of over-long texts is cut, "none" if the caller would rather have an error."""
    if truncate is False:
        return "none"
    return "start" if (direction or "").lower() == "left" else "end"


def is_query(task: str | None) -> bool:
    """Whether a task such as `retrieval.query`, or an input type such as `query`, means the query's side."""
    return task is not None and task.rpartition(".")[2] in ("query", "search_query")


def _item(value: str | int | list[int], index: int) -> ItemLike:
    if isinstance(value, int):
        raise InvalidInputError(f"input {index} is a number among texts; send texts, or lists of token ids")
    return value if isinstance(value, str) else Item(input_ids=value)


def _token_id(value: str | int | list[int], index: int) -> int:
    if not isinstance(value, int):
        raise InvalidInputError(f"input {index} is not a number among token ids; send [ids], or a list of such lists")
    return value
