"""Hugging Face's inference interface: `{"inputs": …}` to the server's root, or to a path that names the model."""

from __future__ import annotations

from typing import Any

import msgspec

from tercet.errors import TercetError
from tercet_server.dialects import tei
from tercet_server.endpoint import Call, Dialect, Endpoint
from tercet_server.inputs import Inputs
from tercet_server.service import Service


class ErrorBody(msgspec.Struct):
    """What went wrong, and the seconds until a model that is being loaded is there."""

    error: str
    estimated_time: float | msgspec.UnsetType = msgspec.UNSET


def error(failure: TercetError) -> tuple[int, ErrorBody]:
    """Return the status and body of an error."""
    seconds = failure.retry_after_s
    return failure.status, ErrorBody(failure.message, msgspec.UNSET if seconds is None else seconds)


DIALECT = Dialect("huggingface", error, ErrorBody, "Hugging Face's inference interface")


class InferenceBody(tei.Side, kw_only=True):
    """Texts to embed, or one text and others that it is compared with.

    Attributes:
        normalize: true makes vectors of unit length; the default is the checkpoint's own pipeline.
        parameters: of comparisons.
    """

    inputs: Inputs | tei.Sentences
    normalize: bool | None = None
    dimensions: int | None = None
    parameters: tei.Side | None = None


async def infer(service: Service, call: Call[Any]) -> Any:
    """Answer with one vector for each text, or with one similarity for each sentence."""
    body: InferenceBody = call.body
    if isinstance(body.inputs, tei.Sentences):
        call.body = tei.SimilarityBody(body.inputs, body.parameters)
        return await tei.similarity(service, call)
    given = msgspec.structs.asdict(body)
    call.body = tei.EmbedBody(**{name: given[name] for name in tei.EmbedBody.__struct_fields__})
    return await tei.embed(service, call)


def _at(path: str) -> Endpoint:
    answer = list[float | list[float]]
    return Endpoint("POST", path, infer, DIALECT, "Embed or compare texts", InferenceBody, {200: answer})


ENDPOINTS = (
    _at("/"),
    _at("/models/{model}"),
    _at("/models/{model}/pipeline/feature-extraction"),
    _at("/models/{model}/pipeline/sentence-similarity"),
    _at("/pipeline/feature-extraction/{model}"),
    _at("/pipeline/sentence-similarity/{model}"),
)
