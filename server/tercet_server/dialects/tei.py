"""Text Embeddings Inference: its own routes. They name no model: `/m/{model}/embed` does, else the server's default.

`/rerank` is routed by `rerank.py`, which tells these bodies from others.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tercet.checkpoints.spec import ModelSpec
from tercet.errors import InvalidInputError, TercetError, UnsupportedOperationError
from tercet.types import Embeddings, EncodeChoices, Output
from tercet_server.endpoint import Answer, Call, Dialect, Endpoint
from tercet_server.inputs import Inputs, items_of, truncation
from tercet_server.service import Service

_UNIT = 1e-5  # vectors whose length is this near to 1 are of unit length already

ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class EmptyInputError(InvalidInputError):
    """There is nothing to work on, which these clients are told with a status of its own."""


class ErrorBody(msgspec.Struct):
    """What went wrong, and of which kind it is."""

    error: str
    error_type: ErrorType


def error(failure: TercetError) -> tuple[int, ErrorBody]:
    """Return the status and body of an error."""
    status, kind = _kind(failure)
    return status, ErrorBody(failure.message, kind)


def _kind(failure: TercetError) -> tuple[int, ErrorType]:
    match failure.status:
        case 400:
            return (400, "Empty") if isinstance(failure, EmptyInputError) else (422, "Validation")
        case 429:
            return 429, "Overloaded"
        case 503:
            return 503, "Unhealthy"
        case 401 | 403 | 404 | 405 | 413:
            return failure.status, "Validation"
        case 504:
            return 504, "Backend"
        case _:
            return 424, "Backend"


DIALECT = Dialect("tei", error, ErrorBody, "Text Embeddings Inference")

Direction = Literal["Left", "Right", "left", "right"]


class Cut(msgspec.Struct, kw_only=True):
    """What becomes of over-long texts.

    Attributes:
        truncate: false makes them an error. truncation_direction: which end is cut.
    """

    truncate: bool | None = None
    truncation_direction: Direction = "Right"


class Side(Cut, kw_only=True):
    """How texts are read.

    Attributes:
        prompt_name: one of the checkpoint's prompts, or `query` for the query's side.
    """

    prompt_name: str | None = None


class Texts(Side, kw_only=True):
    """Texts, or token ids that are used as they are."""

    inputs: Inputs


class EmbedBody(Texts, kw_only=True):
    """What to embed.

    Attributes:
        normalize: vectors of unit length; false leaves them as the checkpoint's own pipeline makes them.
    """

    normalize: bool = True
    dimensions: int | None = None


class Weight(msgspec.Struct):
    """One entry of a sparse vector."""

    index: int
    value: float


class Sentences(msgspec.Struct):
    """One text and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityBody(msgspec.Struct):
    """What to compare."""

    inputs: Sentences
    parameters: Side | None = None


class RerankBody(Cut, kw_only=True):
    """A query and the texts to rank.

    Attributes:
        raw_scores: logits of a cross-encoder in place of their sigmoid; other models' scores are similarities.
    """

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False


class Rank(msgspec.Struct):
    """One text's score; `index` is its place in the request."""

    index: int
    score: float
    text: str | msgspec.UnsetType = msgspec.UNSET


class PredictBody(Cut, kw_only=True):
    """One pair of texts, or a list of pairs."""

    inputs: str | list[str | list[str]]
    raw_scores: bool = False


class Prediction(msgspec.Struct):
    """A label and its score."""

    score: float
    label: str


async def embed(service: Service, call: Call[EmbedBody]) -> Any:
    """Answer with one dense vector for each input."""
    body = call.body
    result = await _encode(service, call, body, "dense", body.dimensions)
    return unit(result.dense) if body.normalize else result.dense


async def embed_all(service: Service, call: Call[Texts]) -> Any:
    """Answer with the model's multivector output, one vector for each token."""
    result = await _encode(service, call, call.body, "multivector")
    assert result.multivector is not None
    return list(result.multivector)


async def embed_sparse(service: Service, call: Call[Texts]) -> Any:
    """Answer with the weights of each input's terms."""
    result = await _encode(service, call, call.body, "sparse")
    return Answer(partial(_weights, result))


def _weights(result: Embeddings) -> list[list[Weight]]:
    assert result.sparse is not None
    return [[Weight(*pair) for pair in zip(v.indices.tolist(), v.values.tolist(), strict=True)] for v in result.sparse]


async def similarity(service: Service, call: Call[SimilarityBody]) -> Any:
    """Answer with the cosine of each sentence's vector with the source's."""
    given, read_as = call.body.inputs, call.body.parameters or Side()
    if not given.sentences:
        raise EmptyInputError("`sentences` is empty; give at least one")
    texts = Texts(inputs=[given.source_sentence, *given.sentences], **msgspec.structs.asdict(read_as))
    vectors = unit((await _encode(service, call, texts, "dense")).dense)
    return (vectors[1:] * vectors[0]).sum(axis=1)


async def rerank(service: Service, call: Call[RerankBody]) -> Any:
    """Answer with the texts' scores, best first."""
    body = call.body
    if not body.texts:
        raise EmptyInputError("`texts` is empty; give at least one")
    scores = await service.score(call, None, body.query, body.texts, options=_score_options(body))
    text = body.texts if body.return_text else [msgspec.UNSET] * len(body.texts)
    return [Rank(row.index, row.score, text[row.index]) for row in scores]


async def predict(service: Service, call: Call[PredictBody]) -> Any:
    """Answer with the label and score of each pair of texts, by a model that reads pairs."""
    inputs = call.body.inputs
    if not inputs:
        raise EmptyInputError("`inputs` is empty; give at least one pair of texts")
    single = isinstance(inputs[0], str)
    pairs = [_pair(given) for given in ([inputs] if single else inputs)]
    options = {"scoring": "cross-encoder", **_score_options(call.body)}
    places: dict[str, list[int]] = {}
    for i, (first, _) in enumerate(pairs):
        places.setdefault(first, []).append(i)
    scored = await asyncio.gather(
        *(service.score(call, None, first, [pairs[i][1] for i in of], options=options) for first, of in places.items())
    )
    label = (await service.checkpoint(call, None, "score")).spec.config.get("id2label", {}).get("0", "LABEL_0")
    scores = np.empty(len(pairs), np.float32)
    for of, result in zip(places.values(), scored, strict=True):
        scores[of] = result.scores
    answers = [[Prediction(score, label)] for score in scores.tolist()]
    return answers[0] if single else answers


def unit(vectors: NDArray[Any] | None) -> NDArray[Any]:
    """Return (n, d) vectors divided by their length, bit for bit as they are where that is 1 already."""
    assert vectors is not None
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(np.abs(norms - 1) < _UNIT, vectors, vectors / np.maximum(norms, np.float32(1e-12)))


async def _encode(
    service: Service, call: Call[Any], body: Texts, output: Output, dimensions: int | None = None
) -> Embeddings:
    if not body.inputs:
        raise EmptyInputError("`inputs` is empty; give at least one text")
    choices = EncodeChoices(
        output_types=[output],
        dimensions=dimensions,
        truncate=truncation(body.truncate, body.truncation_direction),
    )
    if body.prompt_name is not None:
        choices |= side((await service.checkpoint(call, None, output)).spec, body.prompt_name)
    return await service.encode(call, None, items_of(body.inputs), **choices)


def side(spec: ModelSpec, name: str) -> EncodeChoices:
    """Return how to encode under a prompt's name; `query` is the query's side even of a model that has no prompts.

    Raises:
        InvalidInputError: the checkpoint has no such prompt.
    """
    if name == spec.query_prompt or (name == "query" and name not in spec.prompts):
        return {"is_query": True}
    return {"prompt": known_prompt(spec, name)}


def known_prompt(spec: ModelSpec, name: str) -> str:
    """Return the name if it is one of the checkpoint's prompts.

    Raises:
        InvalidInputError: it is not.
    """
    if name not in spec.prompts:
        has = ", ".join(spec.prompts) or "none"
        raise InvalidInputError(f"prompt_name {name!r} is no prompt of this model; it has: {has}")
    return name


def _score_options(body: RerankBody | PredictBody) -> dict[str, str]:
    return {
        "activation": "identity" if body.raw_scores else "sigmoid",
        "truncate": truncation(body.truncate, body.truncation_direction),
    }


def _pair(given: Any) -> tuple[str, str]:
    if isinstance(given, list) and len(given) == 2 and all(isinstance(text, str) for text in given):
        return given[0], given[1]
    raise UnsupportedOperationError("the models here score pairs of texts; send [text, text] or a list of such pairs")


def _post(path: str, handler: Any, summary: str, body: Any, answer: Any) -> Endpoint:
    return Endpoint("POST", path, handler, DIALECT, summary, body, {200: answer, 400: ErrorBody})


ENDPOINTS = (
    _post("/embed", embed, "Embed texts", EmbedBody, list[list[float]]),
    _post("/embed_all", embed_all, "Embed each token of texts", Texts, list[list[list[float]]]),
    _post("/embed_sparse", embed_sparse, "Embed texts by their terms", Texts, list[list[Weight]]),
    _post("/similarity", similarity, "Compare texts", SimilarityBody, list[float]),
    _post("/predict", predict, "Score pairs of texts", PredictBody, list[Prediction | list[Prediction]]),
)
