"""Collections know their models: made, opened again, in other processes too, and refused to those that do not fit."""

import json
import subprocess
import sys
import textwrap

import pytest
from weaviate.classes.config import DataType, Property

from support.weaviate_cases import SPEC, TEXTS
from support.weaviate_stub import weaviate_stub
from tercet import Encoding, InvalidInputError, ModelMismatchError, UnsupportedOperationError, VectorSpec
from tercet_weaviate import check_collection, ensure_collection, hybrid, import_objects, vector_config

BERT = VectorSpec(dense="tiny/bert")
REOPEN = textwrap.dedent("""
    import json, sys
    import weaviate
    from tercet import Engine, TercetError, VectorSpec
    from tercet_weaviate import ensure_collection, hybrid

    ports, cache = [int(port) for port in sys.argv[1:3]], sys.argv[3]
    outcomes = []
    with (
        Engine(device="cpu", precision="float32", cache_dir=cache) as engine,
        weaviate.connect_to_local("127.0.0.1", *ports, skip_init_checks=True) as client,
    ):
        for model in sys.argv[4:]:
            spec = VectorSpec(dense=model, multivector="tiny/m3")
            try:
                docs = ensure_collection(client, "Docs", spec, engine)
                found = hybrid(docs, "which fox?", spec, engine, rerank="maxsim")
                outcomes.append([each.properties["text"] for each in found.objects])
            except TercetError as error:
                outcomes.append(f"{type(error).__name__}: {error}")
    print(json.dumps(outcomes))
""")


def reopened(stub, cache, *models):
    """Return what another process finds with each model, or fails with."""
    command = [sys.executable, "-c", REOPEN, str(stub.http_port), str(stub.grpc_port), str(cache), *models]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_a_collection_is_made_once_and_says_what_made_its_vectors(client, stub, engine):
    first = ensure_collection(client, "docs", SPEC, engine, description="mine")
    import_objects(first, TEXTS, SPEC, engine)
    again = ensure_collection(client, "docs", SPEC, engine)
    assert again.name == "Docs" and len(again) == len(TEXTS)
    schema = stub.store.classes["Docs"].schema
    assert schema["description"] == "mine"
    text, mark = schema["properties"]
    assert (text["name"], mark["name"]) == ("text", "tercet_digest")
    assert json.loads(mark["description"]) == SPEC.fingerprint(engine)
    assert not mark["indexSearchable"] and not mark["indexFilterable"]


@pytest.mark.slow
def test_another_process_opens_it_and_another_model_is_refused_there(engine, cache, tmp_path):
    with weaviate_stub(tmp_path / "weaviate.log") as stub, stub.connect() as client:
        docs = ensure_collection(client, "Docs", SPEC, engine)
        import_objects(docs, TEXTS, SPEC, engine)
        found = hybrid(docs, "which fox?", SPEC, engine, rerank="maxsim")
    with weaviate_stub(tmp_path / "weaviate.log") as stub:
        texts, refused = reopened(stub, cache, "tiny/bert", "tiny/other")
    assert texts == [each.properties["text"] for each in found.objects]
    assert refused.startswith("ModelMismatchError: collection 'Docs' holds dense vectors of tiny/bert@")
    assert refused.endswith("Use the model it was filled with, or fill a new one")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (VectorSpec(dense="tiny/other"), "holds dense vectors of tiny/bert.*which those of tiny/other"),
        (VectorSpec(dense=Encoding("tiny/bert", dimensions=8)), "dimensions: None then, 8 now"),
        (VectorSpec(dense=Encoding("tiny/bert", query_prompt="q: ")), "query_prompt: None then, q:  now"),
        (VectorSpec(multivector="tiny/m3"), "has no multivector vectors; it has dense"),
    ],
)
def test_another_model_is_refused_wherever_it_is_used(client, engine, spec, message):
    docs = ensure_collection(client, "Docs", BERT, engine)
    import_objects(docs, TEXTS, BERT, engine)
    uses = [
        lambda: ensure_collection(client, "Docs", spec, engine),
        lambda: check_collection(docs, spec, engine),
        lambda: import_objects(docs, ["new"], spec, engine),
        lambda: hybrid(docs, "fox", spec, engine),
    ]
    for use in uses:
        with pytest.raises(ModelMismatchError, match=f"collection 'Docs' .*{message}"):
            use()
    assert len(docs) == len(TEXTS)


def test_a_collection_of_the_users_own_is_marked_by_the_first_write(client, stub, engine):
    docs = client.collections.create("Docs", vector_config=vector_config(BERT))
    with pytest.raises(ModelMismatchError, match=r"does not say which models .* ensure_collection"):
        hybrid(docs, "fox", BERT, engine)
    import_objects(docs, TEXTS, BERT, engine)
    assert hybrid(docs, "fox", BERT, engine, limit=2).objects
    with pytest.raises(ModelMismatchError, match="tiny/other"):
        import_objects(docs, TEXTS, VectorSpec(dense="tiny/other"), engine)


def test_vectors_of_unknown_models_are_not_mixed_with_ours(client, stub, engine):
    docs = client.collections.create("Docs", vector_config=vector_config(BERT))
    docs.data.insert_many([{"text": "somebody else's"}])
    with pytest.raises(ModelMismatchError, match="does not say which models"):
        import_objects(docs, TEXTS, BERT, engine)
    assert len(docs) == 1


def test_a_missing_vector_is_named_before_anything_is_written(client, engine):
    docs = client.collections.create("Docs", vector_config=vector_config(BERT))
    with pytest.raises(ModelMismatchError, match="'Docs' has no vector named multivector"):
        import_objects(docs, TEXTS, SPEC, engine)
    assert len(docs) == 0


def test_a_search_asks_for_the_schema_once(client, stub, engine):
    docs = ensure_collection(client, "Docs", BERT, engine)
    import_objects(docs, TEXTS, BERT, engine)
    hybrid(docs, "fox", BERT, engine)
    schema = stub.store.classes["Docs"].schema
    stub.store.classes["Docs"].schema = {**schema, "properties": []}  # would be refused if it were read again
    assert hybrid(docs, "fox", BERT, engine).objects
    with pytest.raises(ModelMismatchError, match="does not say"):
        hybrid(client.collections.use("Docs"), "fox", BERT, engine)


def test_properties_have_the_types_they_are_given(client, stub, engine):
    year, body = (
        Property(name=name, data_type=kind) for name, kind in (("year", DataType.INT), ("body", DataType.TEXT))
    )
    ensure_collection(client, "Docs", BERT, engine, text="body", properties=[year])
    made = {each["name"]: each["dataType"] for each in stub.store.classes["Docs"].schema["properties"]}
    assert made == {"body": ["text"], "tercet_digest": ["text"], "year": ["int"]}
    with pytest.raises(InvalidInputError, match="'body' and 'tercet_digest', which are made here"):
        ensure_collection(client, "Others", BERT, engine, text="body", properties=[year, body])
    assert not client.collections.exists("Others")


def test_a_model_without_the_output_leaves_no_collection_behind(client, engine):
    with pytest.raises(UnsupportedOperationError, match="has no 'dense' output"):
        ensure_collection(client, "Docs", VectorSpec(dense="tiny/reranker"), engine)
    assert not client.collections.exists("Docs")
