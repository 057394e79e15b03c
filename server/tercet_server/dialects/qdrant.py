"""Qdrant's server-side inference: what a Qdrant server sends to the address in `QDRANT__INFERENCE__ADDRESS`.

One request holds the inputs of many points, deduplicated, in any order, for any number of models; the answer has one
embedding for each, in the same order. Qdrant takes 400 for its own client's fault, shows `error` to it, and may try
again after anything from 500.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from tercet.errors import InvalidInputError, TercetError, UnsupportedOperationError
from tercet.types import OUTPUTS, Embeddings, EncodeChoices
from tercet_server.endpoint import Call, Dialect, Endpoint
from tercet_server.service import Service

# Statuses that mean something to Qdrant beside 400; any other fault of the caller's is told as 400.
_TOLD_AS_THEY_ARE = (401, 403, 405, 413, 429)


class ErrorBody(msgspec.Struct):
    """What went wrong."""

    error: str


def error(failure: TercetError) -> tuple[int, ErrorBody]:
    """Return the status and body of an error."""
    status = failure.status
    theirs = status < 500 and status not in _TOLD_AS_THEY_ARE
    return 400 if theirs else status, ErrorBody(failure.message)


DIALECT = Dialect("qdrant", error, ErrorBody, "Qdrant's server-side inference")


class Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The options of a `Document`: which output, and how, in the words of `Engine.encode`."""

    output: Literal["dense", "sparse", "multivector"] | None = None
    dimensions: int | None = None
    prompt: str | None = None
    truncate: Literal["end", "start", "none"] = "end"
    pool_factor: int | None = None
    top_k: int | None = None

    def choices(self, outputs: tuple[str, ...], is_query: bool) -> EncodeChoices:
        """Return what `Service.encode` takes."""
        more = {"pool_factor": self.pool_factor, "top_k": self.top_k}
        return {
            "output_types": outputs,
            "is_query": is_query,
            "dimensions": self.dimensions,
            "prompt": self.prompt,
            "truncate": self.truncate,
            "options": {name: value for name, value in more.items() if value is not None},
        }


class Input(msgspec.Struct):
    """One thing to embed. `model` may end in `:dense`, `:sparse` or `:multivector`, short for `options.output`."""

    data: Any
    model: str
    data_type: Literal["text", "image", "object"] = "text"
    options: Options | None = None


class InferBody(msgspec.Struct):
    """The inputs, whether they are points (`update`) or queries (`search`), and Qdrant's key for this server."""

    inputs: list[Input]
    inference: Literal["update", "search"] | None = None
    token: str | None = None


class Sparse(msgspec.Struct):
    """A sparse vector."""

    indices: list[int]
    values: list[float]


class ModelUsage(msgspec.Struct):
    """What a model has read."""

    tokens: int


class Usage(msgspec.Struct):
    """The usage of each model, under the name that the inputs gave, output left out."""

    models: dict[str, ModelUsage]


class Inferred(msgspec.Struct):
    """One embedding for each input, in their order: a vector, a sparse vector, or a matrix."""

    embeddings: list[list[float | list[float]] | Sparse]
    usage: Usage


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an input asks for; inputs that ask for the same share one result."""

    model: str
    options: Options
    output: str
    text: str


async def infer(service: Service, call: Call[InferBody]) -> Any:
    """Answer with one embedding for each input, in their order, whatever models they name."""
    if not call.body.inputs:
        raise InvalidInputError("inputs is empty; give at least one")
    wanted = [await _wanted(service, call, i, given) for i, given in enumerate(call.body.inputs)]
    found: dict[Wanted, Any] = {}
    tokens: Counter[str] = Counter()

    async def run(outputs: tuple[str, ...], group: list[Wanted]) -> None:
        choices = group[0].options.choices(outputs, call.body.inference == "search")
        result = await service.encode(call, group[0].model, [each.text for each in group], **choices)
        tokens[result.model] += int(result.tokens.sum())
        for output in outputs:
            rows = zip(group, _rows(result, output), strict=True)
            found.update((replace(each, output=output), row) for each, row in rows)

    try:
        async with asyncio.TaskGroup() as tasks:
            for outputs, group in _passes(wanted, call.body.inference):
                tasks.create_task(run(outputs, group))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    usage = {model: {"tokens": n} for model, n in tokens.items()}
    return {"embeddings": [found[each] for each in wanted], "usage": {"models": usage}}


async def _wanted(service: Service, call: Call[InferBody], index: int, given: Input) -> Wanted:
    """Return what an input asks for; where it names no output, the model's first one.

    Raises:
        InvalidInputError: it holds no text, or names two outputs.
        UnsupportedOperationError: it is no text, or the model embeds nothing.
        TercetError: nothing is known of the model and it cannot be loaded.
    """
    if given.data_type != "text":
        raise UnsupportedOperationError(f"inputs[{index}] is no text but {given.data_type}; the models here read text")
    if not isinstance(given.data, str):
        raise InvalidInputError(f"inputs[{index}].data must be a string, not {type(given.data).__name__}")
    options = given.options or Options()
    model, named = _split(service, given.model)
    if named and options.output not in (None, named):
        raise InvalidInputError(f"inputs[{index}]: {given.model!r} asks for {named}, its options for {options.output}")
    output = named or options.output
    if output is None:
        info = await service.described(call, service.resolve(call.model or model, "dense"))
        if not info.outputs:
            raise UnsupportedOperationError(f"{given.model!r} only scores; it embeds nothing")
        output = info.outputs[0]
    return Wanted(model, msgspec.structs.replace(options, output=None), output, given.data)


def _split(service: Service, name: str) -> tuple[str, str | None]:
    """Return a model's name without the output that it may end in, and that output."""
    model, _, output = name.rpartition(":")
    if output not in OUTPUTS or name in service.settings.aliases:
        return name, None
    return model, output


def _passes(wanted: list[Wanted], inference: str | None) -> Iterator[tuple[tuple[str, ...], list[Wanted]]]:
    """Yield groups that run together, each of one model and one set of options, with the outputs to read off.

    A document's dense and sparse vectors come from one pass. Late interaction may put markers around a text, and
    sparse queries may be looked up without a pass, so those stay by themselves: a result must not depend on what else
    is asked for.
    """
    outputs: defaultdict[Wanted, set[str]] = defaultdict(set)
    for each in wanted:
        joint = inference != "search" and each.output != "multivector"
        outputs[replace(each, output="joint" if joint else each.output)].add(each.output)
    groups: defaultdict[tuple[str, Options, tuple[str, ...]], list[Wanted]] = defaultdict(list)
    for each, names in outputs.items():
        groups[each.model, each.options, tuple(sorted(names))].append(each)
    for (_, _, names_of_group), group in groups.items():
        yield names_of_group, group


def _rows(result: Embeddings, output: str) -> Iterator[Any]:
    if output == "sparse":
        assert result.sparse is not None
        return ({"indices": row.indices, "values": row.values} for row in result.sparse)
    column = result.dense if output == "dense" else result.multivector
    assert column is not None
    return iter(column)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/qdrant/infer",
        infer,
        DIALECT,
        "Embed the documents of a Qdrant server's points and queries",
        InferBody,
        {200: Inferred},
        key_of=lambda body: body.token,
    ),
)
