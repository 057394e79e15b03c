"""Text Embeddings Inference: what the model is, how it splits texts into tokens, and whether it answers."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tercet.checkpoints.spans import Token
from tercet.checkpoints.spec import DenseSpec, ModelSpec
from tercet.checkpoints.tokenizer import Tokenizer
from tercet.errors import EngineClosedError, InvalidInputError, UnsupportedOperationError
from tercet.version import __version__
from tercet_server.dialects.tei import DIALECT, ErrorBody, known_prompt
from tercet_server.endpoint import Call, Endpoint
from tercet_server.service import Service
from tercet_server.settings import KINDS


class TokenizeBody(msgspec.Struct):
    """Texts to split into tokens."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeBody(msgspec.Struct):
    """One text's token ids, or several lists of them."""

    ids: list[int | list[int]]
    skip_special_tokens: bool = True


class Info(msgspec.Struct):
    """The model that answers, and the server."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, dict[str, Any]]
    max_input_length: int
    max_batch_tokens: int
    auto_truncate: bool
    version: str


async def tokenize(service: Service, call: Call[TokenizeBody]) -> Any:
    """Answer with the tokens of each text, the special ones around it included unless asked otherwise."""
    body = call.body
    spec, tokenizer = await _tokenizer(service, call)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    prompt = spec.prompts[known_prompt(spec, body.prompt_name)] if body.prompt_name else ""
    return await asyncio.to_thread(
        lambda: [tokenizer.tokens(prompt + text, special=body.add_special_tokens) for text in texts]
    )


async def decode(service: Service, call: Call[DecodeBody]) -> Any:
    """Answer with the text of each list of token ids."""
    _, tokenizer = await _tokenizer(service, call)
    given: list[Any] = [*call.body.ids]
    lists = given if given and isinstance(given[0], list) else [given]
    if any(not isinstance(ids, list) or not all(isinstance(i, int) for i in ids) for ids in lists):
        raise InvalidInputError("`ids` mixes numbers and lists; send one list of token ids, or a list of such lists")
    skip = call.body.skip_special_tokens
    return await asyncio.to_thread(lambda: [tokenizer.decode(ids, skip_special=skip) for ids in lists])


async def info(service: Service, call: Call[None]) -> Any:
    """Answer with what the model is."""
    spec = (await service.checkpoint(call, None, *KINDS)).spec
    device = service.engine.device
    return Info(
        call.model or spec.id,
        spec.revision,
        device.precision,
        _model_type(spec),
        spec.max_length,
        device.max_batch_tokens,
        True,
        __version__,
    )


async def health(service: Service, call: Call[None]) -> Any:
    """Answer 200 while the server should get traffic."""
    state = service.readiness.state
    if state != "ready":
        raise EngineClosedError(f"the server is {state}")
    return {"status": state}


async def _tokenizer(service: Service, call: Call[Any]) -> tuple[ModelSpec, Tokenizer]:
    checkpoint = await service.checkpoint(call, None, *KINDS)
    if checkpoint.tokenizer is None:
        raise UnsupportedOperationError(f"{checkpoint.spec.id} has no vocabulary; choose another model")
    return checkpoint.spec, checkpoint.tokenizer


def _model_type(spec: ModelSpec) -> dict[str, dict[str, Any]]:
    if "score" in spec.heads:
        names = spec.config.get("id2label", {"0": "LABEL_0"})
        return {"reranker": {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}}
    dense = spec.heads.get("dense")
    return {"embedding": {"pooling": "+".join(dense.poolings) if isinstance(dense, DenseSpec) else spec.outputs[0]}}


ENDPOINTS = (
    Endpoint("POST", "/tokenize", tokenize, DIALECT, "Split texts", TokenizeBody, {200: list[list[Token]]}),
    Endpoint("POST", "/decode", decode, DIALECT, "Join token ids to texts", DecodeBody, {200: list[str]}),
    Endpoint("GET", "/info", info, DIALECT, "The model that answers", answers={200: Info}),
    Endpoint(
        "GET",
        "/health",
        health,
        DIALECT,
        "The server should get traffic",
        answers={200: dict[str, str], 503: ErrorBody},
        scope="public",
        modeled=False,
    ),
)
