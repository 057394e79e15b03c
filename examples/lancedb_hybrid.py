"""Hybrid search in LanceDB: dense and BM25 vectors, fused, then reranked token by token.

python examples/lancedb_hybrid.py "how do I read a csv file?"
"""

import sys
import tempfile

import lancedb
import pyarrow as pa

from tercet import VectorSpec
from tercet_lancedb import LateInteractionReranker, create_indices, embed_table, hybrid

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SPEC = VectorSpec(dense=MINILM, sparse="bm25", multivector=MINILM)

DOCUMENTS = {
    "csv.DictReader": "Read the rows of a csv file as dictionaries, keyed by the names in its first line.",
    "difflib.unified_diff": "Compare two lists of lines and show what changed, as a patch.",
    "functools.lru_cache": "Remember the results of expensive function calls, the least recently used dropped first.",
    "glob.glob": "Find all files in a folder whose names match a pattern.",
    "heapq.nlargest": "Return the n largest elements of an iterable.",
    "sched.scheduler": "Run functions at given times, one after the other.",
    "tempfile.TemporaryDirectory": "Make a folder that is removed with all its contents when you are done with it.",
    "zlib.compress": "Compress bytes; decompress gives them back.",
}


def main() -> None:
    question = " ".join(sys.argv[1:]) or "cache what a slow function returned"
    with tempfile.TemporaryDirectory() as folder:
        rows = pa.table({"id": list(DOCUMENTS), "text": list(DOCUMENTS.values())})
        table = embed_table(lancedb.connect(folder), "docs", rows, SPEC)
        create_indices(table)
        found = hybrid(table, question, k=3, reranker=LateInteractionReranker.of(table.schema))
        print(question)
        for row in found.to_pylist():
            print(f"{row['_relevance_score']:6.3f}  {row['id']}: {row['text']}")


if __name__ == "__main__":
    main()
