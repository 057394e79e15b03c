"""Collections: what a spec makes of them, and when one is refused."""

import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("qdrant_client")

from qdrant_client import QdrantClient, models

from support.tiny_models import save_bert
from tercet import Encoding, InvalidInputError, ModelMismatchError, UnsupportedOperationError, VectorSpec
from tercet_qdrant import CollectionSpec, check_collection, ensure_collection, hybrid_query, upload

DOCUMENTS = [{"id": 1, "text": "quick fox"}, {"id": 2, "text": "lazy dog"}]


@pytest.fixture(scope="module")
def saved(m3, bert, tmp_path_factory):
    """Models: m3, and two of one shape, bert and other."""
    other = tmp_path_factory.mktemp("other")
    save_bert(other, seed=1)
    return {"m3": m3, "bert": bert, "other": str(other)}


@pytest.fixture
def client():
    client = QdrantClient(":memory:")
    yield client
    client.close()


def params(client, name="docs"):
    return client.get_collection(name).config.params


def test_each_kind_of_vector_gets_what_it_needs(client, engine, saved):
    spec = VectorSpec(dense=Encoding(saved["bert"], dimensions=8), sparse="bm25", multivector=saved["m3"])
    assert ensure_collection(client, "docs", spec, inference=engine, metadata={"owner": "me"})
    made = params(client)
    assert made.vectors["dense"].size == 8 and made.vectors["dense"].distance == models.Distance.COSINE
    late = made.vectors["multivector"]
    assert late.multivector_config.comparator == models.MultiVectorComparator.MAX_SIM and late.hnsw_config.m == 0
    assert made.sparse_vectors["sparse"].modifier == models.Modifier.IDF
    metadata = client.get_collection("docs").config.metadata
    assert metadata["owner"] == "me" and set(metadata["tercet"]["fingerprint"]) == {"dense", "sparse", "multivector"}


def test_learned_weights_get_no_document_frequencies(client, engine, saved):
    ensure_collection(client, "docs", VectorSpec(sparse=saved["m3"]), inference=engine)
    assert params(client).sparse_vectors["sparse"].modifier is None


def test_presets_and_names(engine, saved):
    vectors = VectorSpec(dense=saved["m3"], sparse="bm25", multivector=saved["m3"])
    compact = CollectionSpec.compact(vectors).schema(engine)
    dense, late = compact["vectors_config"]["dense"], compact["vectors_config"]["multivector"]
    assert dense.datatype == late.datatype == models.Datatype.FLOAT16 and dense.on_disk
    assert dense.quantization_config.scalar.type == models.ScalarType.INT8 and late.quantization_config is None
    assert compact["sparse_vectors_config"]["sparse"].index.on_disk
    smallest = CollectionSpec.smallest(VectorSpec(dense=saved["bert"]))
    assert isinstance(smallest.schema(engine)["vectors_config"]["dense"].quantization_config, models.BinaryQuantization)
    assert smallest.search_params().quantization.oversampling == 3.0 and CollectionSpec(vectors).search_params() is None
    named = CollectionSpec(vectors, dense_name="title", sparse_name="words").schema(engine)
    assert set(named["vectors_config"]) == {"title", "multivector"} and set(named["sparse_vectors_config"]) == {"words"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CollectionSpec(VectorSpec(dense="m"), quantization="int4"),
            "quantization='int4': choose one of None, 'i",
        ),
        (lambda: CollectionSpec(VectorSpec(dense="m"), datatype="uint8"), "datatype='uint8': choose one of 'float32'"),
        (lambda: CollectionSpec(VectorSpec(sparse="m"), quantization="int8"), "is of dense vectors; the spec has none"),
        (lambda: CollectionSpec(VectorSpec(dense="m", sparse="n"), sparse_name="dense"), "a name of its own"),
        (lambda: CollectionSpec(VectorSpec(dense=Encoding("m", output_dtype="int8"))), "dense vectors of int8 values"),
    ],
)
def test_a_wrong_spec_says_what_to_do(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_making_it_twice_checks_it(client, engine, saved):
    spec = VectorSpec(dense=saved["bert"], sparse="bm25")
    assert ensure_collection(client, "docs", spec, inference=engine)
    assert not ensure_collection(client, "docs", spec, inference=engine)
    assert set(check_collection(client, "docs", spec, inference=engine)) == {"dense", "sparse"}


def test_another_model_of_the_same_shape_is_refused_by_every_function(client, engine, saved):
    ensure_collection(client, "docs", VectorSpec(dense=saved["bert"]), inference=engine)
    wrong = VectorSpec(dense=saved["other"])
    for refused in (
        lambda: ensure_collection(client, "docs", wrong, inference=engine),
        lambda: check_collection(client, "docs", wrong, inference=engine),
        lambda: upload(client, "docs", DOCUMENTS, wrong, inference=engine),
        lambda: hybrid_query(client, "docs", "fox", wrong, inference=engine),
    ):
        with pytest.raises(
            ModelMismatchError, match=r"collection 'docs' holds dense vectors of .*bert.* fill a new one"
        ):
            refused()
    assert client.count("docs").count == 0


def test_a_collection_made_anew_is_checked_anew(client, engine, saved):
    first, second = VectorSpec(dense=saved["bert"]), VectorSpec(dense=saved["other"])
    ensure_collection(client, "docs", first, inference=engine)
    hybrid_query(client, "docs", "fox", first, inference=engine)
    client.delete_collection("docs")
    ensure_collection(client, "docs", second, inference=engine)
    with pytest.raises(ModelMismatchError):
        hybrid_query(client, "docs", "fox", first, inference=engine)


def test_what_does_not_fit_says_what_to_do(client, engine, saved):
    spec = VectorSpec(dense=saved["bert"], sparse="bm25")
    with pytest.raises(InvalidInputError, match="there is no collection 'docs'; make it with `ensure_collection`"):
        hybrid_query(client, "docs", "fox", spec, inference=engine)
    with pytest.raises(InvalidInputError, match="there is no collection 'docs'"):
        upload(client, "docs", DOCUMENTS, spec, inference=engine)
    with pytest.raises(UnsupportedOperationError, match="has no 'sparse' output"):
        ensure_collection(client, "docs", VectorSpec(sparse=saved["bert"]), inference=engine)
    ensure_collection(client, "docs", spec, inference=engine)
    with pytest.raises(InvalidInputError, match="also has sparse vectors, and every document needs them"):
        upload(client, "docs", DOCUMENTS, VectorSpec(dense=saved["bert"]), inference=engine)
    with pytest.raises(ModelMismatchError, match="has no vectors 'title' of 32 dimensions; it has 'dense' of 32"):
        check_collection(client, "docs", CollectionSpec(spec, dense_name="title"), inference=engine)
    with pytest.raises(ModelMismatchError, match="has no sparse vectors 'words' with modifier idf; it has 'sparse'"):
        check_collection(client, "docs", CollectionSpec(spec, sparse_name="words"), inference=engine)
    client.create_collection("foreign", vectors_config=CollectionSpec(spec).schema(engine)["vectors_config"])
    with pytest.raises(ModelMismatchError, match="'foreign' does not say which models its vectors are of"):
        check_collection(client, "foreign", spec, inference=engine)


_ELSEWHERE = """
import sys
from qdrant_client import QdrantClient
from tercet import ModelMismatchError, VectorSpec
from tercet_qdrant import hybrid_query

store, right, wrong = sys.argv[1:]
client = QdrantClient(path=store)
choices = {"connection": {"device": "cpu", "precision": "float32"}}
for point in hybrid_query(client, "docs", "lazy dog", VectorSpec(dense=right, sparse="bm25"), **choices).points:
    print(point.id, round(point.score, 6))
try:
    hybrid_query(client, "docs", "lazy dog", VectorSpec(dense=wrong, sparse="bm25"), **choices)
except ModelMismatchError as error:
    print(error)
client.close()
"""


@pytest.mark.slow
def test_a_new_process_goes_on_with_it_and_refuses_the_wrong_model(engine, saved, tmp_path):
    spec, store = VectorSpec(dense=saved["bert"], sparse="bm25"), str(tmp_path / "store")
    client = QdrantClient(path=store)
    ensure_collection(client, "docs", spec, inference=engine)
    upload(client, "docs", DOCUMENTS, spec, inference=engine)
    here = hybrid_query(client, "docs", "lazy dog", spec, inference=engine).points
    client.close()
    command = [sys.executable, "-c", _ELSEWHERE, store, saved["bert"], saved["other"]]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert there[:-1] == [f"{point.id} {round(point.score, 6)}" for point in here]
    assert "holds dense vectors of" in there[-1] and "Use the model it was filled with, or fill a new one" in there[-1]
