"""Hybrid search in Weaviate with vectors made in this process: import, search, and read the best candidates again.

docker run -p 8080:8080 -p 50051:50051 cr.weaviate.io/semitechnologies/weaviate:latest
python examples/weaviate_hybrid.py "how do I write a list to disk?"
"""

import argparse

import weaviate

from tercet import VectorSpec
from tercet_weaviate import ensure_collection, hybrid, import_objects

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SPEC = VectorSpec(dense=MINILM, multivector=MINILM)
FUNCTIONS = {
    "json.dump": "Serialize an object as JSON to a file.",
    "json.loads": "Turn a JSON text into Python objects.",
    "csv.DictReader": "Read the rows of a spreadsheet file as dictionaries.",
    "shutil.copytree": "Copy a whole folder with everything in it.",
    "tempfile.TemporaryDirectory": "A folder that is deleted when it is no longer needed.",
    "functools.lru_cache": "Remember the results of calls that take long.",
    "heapq.nlargest": "The largest few of many values, without sorting all.",
    "difflib.unified_diff": "Show what two texts have in common and where they differ.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", default="how do I write a list to disk?")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--grpc-port", type=int, default=50051)
    arguments = parser.parse_args()
    with weaviate.connect_to_local(arguments.host, arguments.port, arguments.grpc_port) as client:
        functions = ensure_collection(client, "Functions", SPEC)
        documents = [{"name": name, "text": text} for name, text in FUNCTIONS.items()]
        report = import_objects(functions, documents, SPEC, key="name")
        print(f"{report.written} written, {report.unchanged} already there, {len(report.failed)} refused")
        found = hybrid(functions, arguments.question, SPEC, alpha=0.5, rerank="maxsim", limit=3)
        for each in found.objects:
            print(f"{each.metadata.rerank_score:6.2f}  {each.properties['name']}: {each.properties['text']}")


if __name__ == "__main__":
    main()
