"""Collections opened in another process, and by another way to the same models."""

import json
import shutil
import subprocess
import sys

import chromadb
import numpy as np
import pytest

from tercet import VectorSpec
from tercet_chroma import HybridCollection, TercetEmbeddingFunction

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["The Eiffel Tower is in Paris.", "Cats sleep most of the day.", "Paris is the capital of France.", "E1234"]

_QUERY = """
import json, sys, chromadb, tercet_chroma
found = {}
for name in ("same", "swapped"):
    collection = chromadb.PersistentClient(sys.argv[1]).get_collection(name)
    try:
        found[name] = collection.query(query_texts=["hello fox"], n_results=3)
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
print(json.dumps(found))
"""

_UNREGISTERED = """
import sys, chromadb
try:
    chromadb.PersistentClient(sys.argv[1]).get_collection("same").query(query_texts=["hello"])
except ValueError as error:
    print(error)
"""


def output(code, folder):
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_a_new_process_rebuilds_the_function_and_refuses_another_model(tmp_path, bert, other_bert):
    swapped = tmp_path / "model"
    shutil.copytree(bert, swapped)
    client = chromadb.PersistentClient(tmp_path / "chroma")
    for name, model in (("same", bert), ("swapped", str(swapped))):
        function = TercetEmbeddingFunction(model, "local", device="cpu", query_prompt="ask: ")
        client.create_collection(name, embedding_function=function).add(ids=list("abc"), documents=TEXTS[:3])
    expected = client.get_collection("same").query(query_texts=["hello fox"], n_results=3)
    shutil.rmtree(swapped)
    shutil.copytree(other_bert, swapped)
    found = json.loads(output(_QUERY, tmp_path / "chroma"))
    assert found["same"]["ids"] == expected["ids"]
    np.testing.assert_allclose(found["same"]["distances"], expected["distances"], atol=1e-5)
    kind, message = found["swapped"]
    assert kind == "ModelMismatchError" and "Use the model it was filled with, or fill a new one" in message


def test_a_process_that_has_not_imported_the_package_is_told_the_functions_name(tmp_path, engine, bert):
    client = chromadb.PersistentClient(tmp_path)
    client.create_collection("same", embedding_function=TercetEmbeddingFunction(bert, engine))
    assert "Embedding function tercet not found" in output(_UNREGISTERED, tmp_path)


@pytest.mark.slow
def test_local_and_a_server_store_the_same_vectors_and_rank_alike(live, ephemeral, served):
    spec, found = VectorSpec(dense=MINILM, sparse="bm25", multivector=MINILM), {}
    ways = {"local": ("local", {"device": "cpu", "precision": "float32"}), "server": (live, {})}
    for client in (ephemeral, served):
        for way, (inference, choices) in ways.items():
            with HybridCollection(client, f"parity-{way}", spec, inference, **choices) as collection:
                collection.add(list("abcd"), documents=TEXTS)
                held = collection.get(include=["embeddings"])
                queries = ["sleepy animals", "E1234", "a city in France"]
                answers = [collection.query(queries, rerank=rerank) for rerank in (None, "maxsim")]
                tokens = collection._mirror._sidecar.matrices(held["ids"], 384)
                found[way] = held["ids"], held["embeddings"], tokens.values, answers
        local, server = found["local"], found["server"]
        assert local[0] == server[0] and np.array_equal(local[1], server[1]) and np.array_equal(local[2], server[2])
        assert local[3] == server[3]
        assert [rows[0] for rows in local[3][0]["ids"]] == ["b", "d", "c"]
