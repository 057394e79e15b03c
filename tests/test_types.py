import numpy as np
import pytest

from tercet.types import (
    Embedding,
    Embeddings,
    Inference,
    MultiVectorBatch,
    Quantization,
    Scores,
    SparseBatch,
    SparseVector,
)


def sparse(*pairs: tuple[int, float]) -> SparseVector:
    return SparseVector(np.array([i for i, _ in pairs], np.uint32), np.array([v for _, v in pairs], np.float32))


ROWS = [sparse((3, 1.0), (7, 0.5)), sparse(), sparse((2**32 - 1, 2.0))]
MATRICES = [np.full((2, 4), 1.0, np.float32), np.empty((0, 4), np.float32), np.full((1, 4), 3.0, np.float32)]


def embeddings() -> Embeddings:
    return Embeddings(
        model="m",
        revision="r",
        ids=["a", None, "c"],
        tokens=np.array([4, 2, 3], np.int32),
        truncated=np.array([False, True, False]),
        dense=np.arange(12, dtype=np.float32).reshape(3, 4),
        sparse=SparseBatch.from_rows(ROWS, 2**32),
        multivector=MultiVectorBatch.from_rows(MATRICES, 4),
        quantization=Quantization(np.array([1, 2, 3], np.float32), np.zeros(3, np.float32)),
    )


def test_sparse_rows_come_back_as_they_went_in() -> None:
    batch = SparseBatch.from_rows(ROWS, 2**32)
    assert batch.indptr.tolist() == [0, 2, 2, 3]
    assert (batch.indptr.dtype, batch.indices.dtype, batch.values.dtype) == (np.int64, np.uint32, np.float32)
    for row, back in zip(ROWS, batch, strict=True):
        assert back.indices.tolist() == row.indices.tolist() and back.values.tolist() == row.values.tolist()
        assert len(back) == len(row)


def test_matrices_come_back_as_views() -> None:
    batch = MultiVectorBatch.from_rows(MATRICES, 4)
    assert [matrix.shape for matrix in batch] == [(2, 4), (0, 4), (1, 4)]
    assert all(np.shares_memory(batch[i], batch.values) for i in (0, 2))
    assert (batch[-1] == 3).all()


@pytest.mark.parametrize("batch", [SparseBatch.from_rows([], 9), MultiVectorBatch.from_rows([], 9)])
def test_empty_batches_have_no_rows(batch: SparseBatch | MultiVectorBatch) -> None:
    assert len(batch) == 0 and list(batch) == []


@pytest.mark.parametrize("i", [3, -4])
def test_rows_out_of_range_say_so(i: int) -> None:
    for batch in (SparseBatch.from_rows(ROWS, 9), MultiVectorBatch.from_rows(MATRICES, 4), embeddings()):
        with pytest.raises(IndexError, match=f"{i} is out of range for 3"):
            batch[i]


def test_an_embedding_maps_the_outputs_that_were_asked_for() -> None:
    one = embeddings()[-3]
    assert isinstance(one, Embedding) and list(one) == ["dense", "sparse", "multivector"] and len(one) == 3
    assert one["dense"].tolist() == [0, 1, 2, 3] and one["multivector"].shape == (2, 4)
    assert (one.id, one.tokens, one.truncated) == ("a", 4, False)
    assert one.quantization.scale.tolist() == [1.0]
    with pytest.raises(KeyError):
        one["colbert"]


def test_embeddings_slice_and_iterate_like_a_sequence() -> None:
    whole = embeddings()
    assert [e.id for e in whole] == ["a", None, "c"]
    assert [e.id for e in whole[::-1]] == ["c", None, "a"]
    assert whole[1].truncated is True


def test_scores_run_from_best_to_worst_and_keep_request_order_too() -> None:
    ranked = Scores(
        model="m",
        revision=None,
        ids=["x", "y", "z"],
        scores=np.array([0.1, 0.9, 0.5], np.float32),
        order=np.array([1, 2]),
        tokens=np.ones(3, np.int32),
        truncated=np.zeros(3, bool),
    )
    assert [(s.index, s.id, s.rank) for s in ranked] == [(1, "y", 0), (2, "z", 1)]
    assert ranked[-1].score == 0.5 and len(ranked) == 2 and len(ranked.scores) == 3
    assert [s.index for s in ranked[:1]] == [1]


def test_inference_is_met_by_what_has_its_methods() -> None:
    class Fake:
        def encode(self, model, items, **keywords): ...
        def score(self, model, query, items, **keywords): ...
        def models(self): ...
        def describe(self, model): ...

    assert isinstance(Fake(), Inference)
    assert not isinstance(object(), Inference)
