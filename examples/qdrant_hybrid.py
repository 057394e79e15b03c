"""Hybrid search in Qdrant: dense and BM25 fused, ordered by late interaction.

Needs `pip install 'tercet[demo,qdrant]'`; Qdrant itself may stay in memory.

    python examples/qdrant_hybrid.py [question] [--url http://localhost:6333]
"""

import argparse

from qdrant_client import QdrantClient

from tercet import VectorSpec
from tercet_qdrant import Recipe, ensure_collection, hybrid_query, upload

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SPEC = VectorSpec(dense=MINILM, sparse="bm25", multivector=MINILM)

RECIPES = {
    "BM25": None,
    "dense + BM25": Recipe(late_interaction=False),
    "dense + BM25, then MaxSim": Recipe(),
}
DOCUMENTS = {
    "csv.DictReader": "Map the information in each row to a dict whose keys are given by the header.",
    "sched.scheduler": "A general purpose event scheduler: run functions at given times.",
    "difflib.unified_diff": "Compare two sequences of lines and return the differences as a patch.",
    "tempfile.TemporaryDirectory": "A directory that is removed with all its contents when the context ends.",
    "functools.lru_cache": "Memoize a function: save the results of the most recent calls.",
    "glob.glob": "Return the paths in a folder that match a pattern with wildcards.",
    "shelve.open": "A persistent dictionary on disk, for objects that pickle can handle.",
    "heapq.nlargest": "Find the n largest elements of a dataset without sorting all of it.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="remember the results of expensive function calls")
    parser.add_argument("--url", default=":memory:", help="of a Qdrant server; in memory if left out")
    arguments = parser.parse_args()
    client = QdrantClient(arguments.url)
    ensure_collection(client, "tercet-example", SPEC)
    documents = [{"id": name, "text": f"{name}: {text}"} for name, text in DOCUMENTS.items()]
    print(upload(client, "tercet-example", documents, SPEC))
    print(f"“{arguments.question}”")
    for title, recipe in RECIPES.items():
        spec = SPEC if recipe else VectorSpec(sparse="bm25")
        found = hybrid_query(client, "tercet-example", arguments.question, spec, limit=3, recipe=recipe or Recipe())
        names = [point.payload["_tercet"]["id"] for point in found.points]
        print(f"{title + ':':27}{', '.join(names)}")
    client.close()


if __name__ == "__main__":
    main()
