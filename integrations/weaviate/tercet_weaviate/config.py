"""`vector_config`: what Weaviate is told about a collection's vectors; `headers`: what its modules ask for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import quote, urlsplit

from weaviate.classes.config import Configure

from tercet.errors import InvalidInputError, UnsupportedOperationError
from tercet.vector_spec import Encoding, VectorSpec

if TYPE_CHECKING:
    from weaviate.collections.classes.config_vectors import _VectorConfigCreate

Mode = Literal["self-provided", "transformers", "cohere"]

TEXT = "text"  # the property that is encoded unless another is named

_STORED = ("float32", "float16")  # Weaviate keeps float32 and quantises by itself
_TELLS_SIDES = ("v3", "clip")  # in a model's name, for text2colbert-jinaai to say which side a text is
_PER_MINUTE = "1000000"  # requests; the modules' own limits are those of paid services
_ANY_KEY = "none"  # these modules ask for a key even where the server needs none


def vector_config(
    spec: VectorSpec,
    server_url: str | None = None,
    mode: Mode = "self-provided",
    *,
    text: str = TEXT,
    quantizer: Any = None,
    encoding: Any = None,
) -> list[_VectorConfigCreate]:
    """Return the named vectors of `spec` for `collections.create(vector_config=…)`: "dense", "multivector".

    Args:
        spec: the models, by the names under which the server knows them if modules are to call it.
        server_url: where Weaviate reaches Tercet. Left out, text2vec-transformers calls TRANSFORMERS_INFERENCE_API.
        mode: "self-provided" leaves making vectors to this side. With the others Weaviate makes them too:
            text2vec-transformers sends one text a call, text2vec-cohere batches; multivectors go through
            text2colbert-jinaai.
        text: the property whose text the modules vectorize.
        quantizer: of the dense vectors, `Configure.VectorIndex.Quantizer`.
        encoding: of the multivectors, `Configure.VectorIndex.MultiVector.Encoding`.

    Raises:
        InvalidInputError: an unknown mode, a bad URL, or an encoding that the module cannot ask for.
        UnsupportedOperationError: the spec has sparse vectors, which Weaviate has not.
    """
    require(spec)
    if mode not in get_args(Mode):
        raise InvalidInputError(f"mode={mode!r}: choose one of {', '.join(map(repr, get_args(Mode)))}")
    made: list[_VectorConfigCreate] = []
    if dense := spec.encodings.get("dense"):
        made.append(_dense(dense, server_url, mode, text, quantizer))
    if multivector := spec.encodings.get("multivector"):
        made.append(_multivector(multivector, server_url, mode, text, encoding))
    return made


def headers(spec: VectorSpec, api_key_env: str | None = None) -> dict[str, str]:
    """Return what a client of Weaviate sends along, `connect_to_local(headers=…)`, for the modules that want a key.

    They hold the key for Tercet, or a placeholder where it needs none, and lift the modules' rate limits.

    Args:
        spec: as for `vector_config`.
        api_key_env: the environment variable that holds Tercet's key.

    Raises:
        InvalidInputError: the variable is not set.
        UnsupportedOperationError: as `vector_config`.
    """
    require(spec)
    key = _ANY_KEY if api_key_env is None else os.environ.get(api_key_env)
    if not key:
        raise InvalidInputError(
            f"the environment variable {api_key_env}, which is to hold Tercet's API key, is not set"
        )
    services = {"dense": "Cohere", "multivector": "Jinaai"}
    named = [services[output] for output in spec.outputs]
    keys = {f"X-{service}-Api-Key": key for service in named}
    return keys | {f"X-{service}-Ratelimit-RequestPM-Embedding": _PER_MINUTE for service in named}


def require(spec: VectorSpec) -> None:
    """Raise unless Weaviate can hold the vectors.

    Raises:
        InvalidInputError: an output type that it does not store.
        UnsupportedOperationError: sparse vectors.
    """
    if "sparse" in spec.outputs:
        raise UnsupportedOperationError(
            "Weaviate has no learned sparse vectors; hybrid search ranks words by its own BM25, so leave `sparse` out"
        )
    for output, encoding in spec.encodings.items():
        if encoding.output_dtype not in _STORED:
            raise InvalidInputError(
                f"{output} vectors as {encoding.output_dtype}: Weaviate stores float32; use float32 and let it "
                "compress them, vector_config(quantizer=…)"
            )


def reachable(server_url: str | None, why: str) -> str:
    """Return a URL fit to be written down: without a slash at its end, and without a key.

    Raises:
        InvalidInputError: it is neither.
    """
    parts = urlsplit(server_url or "")
    if not server_url or parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInputError(
            f"server_url={server_url!r}: {why} needs the http:// address where Weaviate finds Tercet"
        )
    if "@" in parts.netloc:
        raise InvalidInputError(
            "server_url holds a key, which would be stored; name its variable in api_key_env instead"
        )
    return server_url.rstrip("/")


def model_url(server_url: str, model: str) -> str:
    """Return the address under which the server answers for one model alone."""
    return f"{server_url}/m/{quote(model, safe='/@')}"


def _dense(encoding: Encoding, server_url: str | None, mode: Mode, text: str, quantizer: Any) -> _VectorConfigCreate:
    if mode == "self-provided":
        made: _VectorConfigCreate = Configure.Vectors.self_provided(name="dense", quantizer=quantizer)
        return made
    _require_plain(encoding, f"text2vec-{mode}")
    shared: dict[str, Any] = {
        "name": "dense",
        "dimensions": encoding.dimensions,
        "source_properties": [text],
        "vectorize_collection_name": False,  # else the name stands before every text, and vectors are not the model's
        "quantizer": quantizer,
    }
    if mode == "cohere":
        url: Any = reachable(server_url, "text2vec-cohere")
        return Configure.Vectors.text2vec_cohere(base_url=url, model=encoding.model, **shared)
    inference_url = model_url(reachable(server_url, "text2vec-transformers"), encoding.model) if server_url else None
    return Configure.Vectors.text2vec_transformers(inference_url=inference_url, **shared)


def _multivector(
    encoding: Encoding, server_url: str | None, mode: Mode, text: str, compressed: Any
) -> _VectorConfigCreate:
    if mode == "self-provided":
        made: _VectorConfigCreate = Configure.MultiVectors.self_provided(name="multivector", encoding=compressed)
        return made
    _require_plain(encoding, "text2colbert-jinaai")
    if not any(part in encoding.model for part in _TELLS_SIDES):
        raise InvalidInputError(
            f"text2colbert-jinaai tells queries from documents only for a model with 'v3' in its name, which "
            f"{encoding.model!r} has not; serve it under another, tercet serve --alias colbert-v3={encoding.model}, "
            "and name that one"
        )
    if encoding.dimensions is None:
        raise InvalidInputError(
            "text2colbert-jinaai asks for 128 dimensions unless told otherwise; name the model's, "
            "Encoding(dimensions=…)"
        )
    index = Configure.MultiVectors.self_provided(encoding=compressed).vectorIndexConfig  # `custom` makes none for these
    settings = {
        "baseURL": reachable(server_url, "text2colbert-jinaai"),
        "model": encoding.model,
        "dimensions": encoding.dimensions,
        "vectorizeClassName": False,
    }
    return Configure.Vectors.custom(
        name="multivector",
        module_name="text2colbert-jinaai",
        module_config=settings,
        source_properties=[text],
        vector_index_config=index,
    )


def _require_plain(encoding: Encoding, module: str) -> None:
    """Raise if the module cannot ask for what the encoding says, and would get other vectors than this side makes."""
    for name in ("query_prompt", "document_prompt", "pool_factor"):
        if getattr(encoding, name) is not None:
            raise InvalidInputError(
                f"{module} cannot ask for {name}={getattr(encoding, name)!r}; leave it out, or use mode='self-provided'"
            )
