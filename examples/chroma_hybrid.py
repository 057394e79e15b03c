"""Hybrid search in Chroma: the docstrings of the standard library by meaning, by words, and token by token.

    python examples/chroma_hybrid.py ["a question"] [--path FOLDER] [--server URL] [--modules json,csv]

With --path the collection stays there; a second run encodes nothing. With --server a Tercet server does the encoding.
"""

from __future__ import annotations

import argparse
import importlib
import inspect

import chromadb

from tercet import VectorSpec
from tercet_chroma import HybridCollection

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MODULES = "csv,json,shutil,tempfile,glob,functools,sched,difflib,textwrap,statistics"


def docstrings(modules: list[str]) -> dict[str, str]:
    """Return the docstring of each public function and class, by its name."""
    found = {}
    for module in map(importlib.import_module, modules):
        for name, value in inspect.getmembers(module, lambda v: inspect.isfunction(v) or inspect.isclass(v)):
            if not name.startswith("_") and value.__module__ == module.__name__ and inspect.getdoc(value):
                found[f"{module.__name__}.{name}"] = f"{module.__name__}.{name}: {inspect.getdoc(value)}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="compare two lists of lines and show the differences")
    parser.add_argument("--path")
    parser.add_argument("--server", default="local")
    parser.add_argument("--modules", default=MODULES)
    arguments = parser.parse_args()
    client = chromadb.PersistentClient(arguments.path) if arguments.path else chromadb.EphemeralClient()
    spec = VectorSpec(dense=MINILM, sparse="bm25", multivector=MINILM)
    texts = docstrings(arguments.modules.split(","))
    with HybridCollection(client, "stdlib", spec, arguments.server) as collection:
        metadatas = [{"module": name.partition(".")[0]} for name in texts]
        collection.upsert(list(texts), documents=list(texts.values()), metadatas=metadatas)
        for rerank in (None, "maxsim"):
            found = collection.query(arguments.question, n_results=3, rerank=rerank)
            print("hybrid" if rerank is None else "hybrid + MaxSim")
            for name, score in zip(found["ids"][0], found["scores"][0], strict=True):
                print(f"  {score:7.4f}  {name}")


if __name__ == "__main__":
    main()
