"""The dialects: what existing clients and databases speak, one file each; each exports `DIALECT` and `ENDPOINTS`."""

from tercet_server.dialects import (
    cohere,
    huggingface,
    jina,
    native,
    ollama,
    openai,
    qdrant,
    rerank,
    tei,
    tei_model,
    weaviate,
)

DIALECTS = (native, openai, cohere, jina, tei, tei_model, rerank, huggingface, ollama, weaviate, qdrant)
