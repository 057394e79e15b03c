"""`compose`: the lines of a docker-compose file that point Weaviate's modules at Tercet."""

from __future__ import annotations

import json
from typing import Literal

from tercet.errors import InvalidInputError
from tercet.vector_spec import VectorSpec
from tercet_weaviate.config import model_url, reachable, require

Module = Literal["transformers", "cohere"]


def compose(
    spec: VectorSpec,
    server_url: str = "http://tercet:8080",
    mode: Module = "transformers",
    *,
    reranker: str | None = None,
    api_key_env: str | None = None,
    service: str = "weaviate",
) -> str:
    """Return YAML to merge into a docker-compose file: which modules Weaviate enables, and where they find Tercet.

    Args:
        spec: as for `vector_config`, whose `mode` is to be the same.
        server_url: Tercet as seen from Weaviate's container.
        mode: which module makes dense vectors.
        reranker: a cross-encoder for reranker-transformers.
        api_key_env: the variable that holds Tercet's key where docker-compose runs; only its name is written.
        service: Weaviate's name in the file.

    Raises:
        InvalidInputError: an unknown mode or a bad URL.
        UnsupportedOperationError: as `vector_config`.
    """
    require(spec)
    if mode not in ("transformers", "cohere"):
        raise InvalidInputError(f"mode={mode!r}: choose 'transformers' or 'cohere', the modules that call Tercet")
    url = reachable(server_url, "compose")
    key = f"${{{api_key_env}:?holds the key of Tercet}}" if api_key_env else None
    variables = _variables(spec, url, mode, reranker, key)
    lines = [f"      {name}: {json.dumps(value)}" for name, value in variables.items()]  # JSON strings are YAML's too
    return "\n".join(["services:", f"  {service}:", "    environment:", *lines, ""])


def _variables(spec: VectorSpec, url: str, mode: Module, reranker: str | None, key: str | None) -> dict[str, str]:
    dense, multivector = spec.encodings.get("dense"), spec.encodings.get("multivector")
    enabled = [f"text2vec-{mode}"] if dense else []
    enabled += ["text2colbert-jinaai"] if multivector else []
    enabled += ["reranker-transformers"] if reranker else []
    variables = {"ENABLE_MODULES": ",".join(enabled)}
    if dense and mode == "transformers":
        variables["TRANSFORMERS_INFERENCE_API"] = model_url(_with_key(url, key), dense.model)
    if dense and mode == "cohere":
        variables["COHERE_APIKEY"] = key or "none"
    if multivector:
        variables["JINAAI_APIKEY"] = key or "none"
    if reranker:
        variables["RERANKER_INFERENCE_API"] = model_url(_with_key(url, key), reranker)
    return variables


def _with_key(url: str, key: str | None) -> str:
    """Return the URL with the key in its user part, the one way for these modules to send one."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://:{key}@{rest}" if key else url
