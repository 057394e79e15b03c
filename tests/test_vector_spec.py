"""A collection's vectors: what makes them, in how many passes, and when two sets can be compared."""

import numpy as np
import pytest

pytest.importorskip("torch")

from support.tiny_models import save_bert, save_m3
from tercet import Encoding, Engine, InvalidInputError, ModelMismatchError, UnsupportedOperationError, VectorSpec
from tercet.vector_spec import check_fingerprint

TEXTS = ["hello world", "the quick brown fox", "numbers 1999"]


@pytest.fixture(scope="module")
def engine():
    with Engine(device="cpu", precision="float32") as engine:
        yield engine


@pytest.fixture(scope="module")
def m3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m3")
    save_m3(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save_bert(folder)
    return str(folder)


class Counted:
    """The engine, and how often it was asked to encode."""

    def __init__(self, engine):
        self.engine, self.calls = engine, []

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def encode(self, model, items, **keywords):
        self.calls.append((model, tuple(keywords["output_types"])))
        return self.engine.encode(model, items, **keywords)


def test_outputs_of_one_model_come_from_one_call(engine, m3):
    counted = Counted(engine)
    spec = VectorSpec(dense=m3, sparse=m3, multivector=m3)
    columns = spec.encode(counted, TEXTS)
    assert counted.calls == [(m3, ("dense", "sparse", "multivector"))]
    expected = engine.encode(m3, TEXTS, output_types=["dense", "sparse", "multivector"])
    np.testing.assert_array_equal(columns["dense"], expected.dense)
    np.testing.assert_array_equal(columns["sparse"].values, expected.sparse.values)
    np.testing.assert_array_equal(columns["multivector"].values, expected.multivector.values)


def test_different_models_each_make_their_own(engine, bert):
    spec = VectorSpec(dense=Encoding(bert, dimensions=8, query_prompt="ask: "), sparse="bm25")
    columns, query = spec.encode(engine, TEXTS), spec.encode_query(engine, "quick fox")
    assert columns["dense"].shape == (3, 8) and len(columns["sparse"]) == 3 and spec.outputs == ("dense", "sparse")
    asked = engine.encode(bert, "quick fox", is_query=True, prompt="ask: ", dimensions=8)["dense"]
    np.testing.assert_array_equal(query["dense"], asked)
    assert query["sparse"].values.tolist() == [1.0, 1.0]


def test_what_only_documents_have_is_left_out_for_queries(engine, m3):
    spec = VectorSpec(multivector=Encoding(m3, pool_factor=2))
    long = "hello world the quick brown fox"
    assert len(spec.encode(engine, [long])["multivector"][0]) < len(spec.encode_query(engine, long)["multivector"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VectorSpec(), "at least one of dense, sparse and multivector"),
        (lambda: VectorSpec(dense=Encoding("m", dimensions=0)), "dimensions must be a whole number"),
        (lambda: VectorSpec(dense=Encoding("m", output_dtype="float8")), "'float8' is not one of"),
        (lambda: VectorSpec(sparse=Encoding("m", top_k=-1)), "top_k"),
    ],
)
def test_a_wrong_spec_is_refused_when_it_is_made(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_a_fingerprint_knows_models_by_what_they_do(engine, bert, tmp_path):
    spec = VectorSpec(dense=bert, sparse="bm25")
    stored = spec.fingerprint(engine)
    check_fingerprint(stored, stored, "collection 'docs'")
    same = tmp_path / "moved"
    save_bert(same)
    (same / "tokenizer.json").write_bytes((engine.checkpoint(bert).spec.directory / "tokenizer.json").read_bytes())
    check_fingerprint(stored, VectorSpec(dense=str(same)).fingerprint(engine), "collection 'docs'")
    other = tmp_path / "other"
    save_bert(other, seed=1)
    with pytest.raises(ModelMismatchError, match=r"collection .docs. holds dense vectors of .*bert.*fingerprint: "):
        check_fingerprint(stored, VectorSpec(dense=str(other)).fingerprint(engine), "collection 'docs'")
    with pytest.raises(ModelMismatchError, match="dimensions: None then, 8 now"):
        check_fingerprint(stored, VectorSpec(dense=Encoding(bert, dimensions=8)).fingerprint(engine), "it")
    with pytest.raises(ModelMismatchError, match="has no multivector vectors; it has dense, sparse"):
        check_fingerprint(stored, VectorSpec(multivector=bert).fingerprint(engine), "it")


def test_a_model_without_the_output_is_refused_before_anything_is_stored(engine, bert):
    with pytest.raises(UnsupportedOperationError, match="has no 'sparse' output"):
        VectorSpec(sparse=bert).fingerprint(engine)
