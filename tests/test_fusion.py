"""Each function against its definition, written out naively."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tercet import fusion
from tercet.errors import InvalidInputError
from tercet.fusion import maxsim, rrf, sparse_dot, top_k, weighted_sum
from tercet.quantize import quantize_multivector
from tercet.types import MultiVectorBatch, SparseBatch, SparseVector

rankings = st.lists(st.lists(st.integers(0, 12), unique=True), min_size=1, max_size=4)
scores = st.floats(-100, 100, width=32)
seeds = st.integers(0, 2**32 - 1)


@given(rankings, st.floats(0.5, 100), st.data())
def test_rrf_is_the_weighted_sum_of_reciprocal_ranks(lists: list[list[int]], k: float, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0, 5), min_size=len(lists), max_size=len(lists)))
    fused = rrf(lists, k=k, weights=weights)
    for key in {key for ranking in lists for key in ranking}:
        expected = sum(w / (k + r.index(key) + 1) for r, w in zip(lists, weights, strict=True) if key in r)
        assert fused[key] == pytest.approx(expected)
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


def test_rrf_by_hand() -> None:
    assert rrf([["a", "b"], ["b", "c"]]) == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "c": 1 / 62})
    assert list(rrf([["a", "b"], ["b", "c"]])) == ["b", "a", "c"]


def test_ties_keep_the_order_of_first_appearance() -> None:
    assert list(rrf([["x"], ["y"], ["a"]])) == ["x", "y", "a"]
    assert list(weighted_sum([{"z": 1.0, "b": 1.0}, {"a": 1.0}], normalize=None)) == ["z", "b", "a"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rrf([[1]], k=0), "positive"),
        (lambda: rrf([[1, 2, 1]]), "twice"),
        (lambda: rrf([[1], [2]], weights=[1.0]), "1 weights for 2"),
        (lambda: weighted_sum([{1: math.nan}]), "not finite"),
        (lambda: weighted_sum([{1: 1.0}], normalize="z-score"), "min-max"),
        (lambda: top_k([1.0], 0), "at least 1"),
        (lambda: top_k([1.0, math.nan], 1), "NaN"),
        (lambda: top_k([[1.0]], 1), "one number per document"),
        (lambda: maxsim(np.ones((1, 3), np.float32), [np.ones((1, 4), np.float32)]), "3 dimensions"),
        (lambda: maxsim(np.ones((1, 8), np.float32), [np.ones((1, 8), np.uint8)]), "scale and offset"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


@given(st.lists(st.dictionaries(st.integers(0, 9), scores), min_size=1, max_size=3), st.sampled_from(["min-max", None]))
def test_weighted_sum_is_its_definition(results: list[dict[int, float]], normalize: str | None) -> None:
    weights = [0.5 + i for i in range(len(results))]
    fused = weighted_sum(results, weights=weights, normalize=normalize)
    for key in fused:
        expected = 0.0
        for result, weight in zip(results, weights, strict=True):
            if key in result:
                low, high = min(result.values()), max(result.values())
                n = result[key] if normalize is None else 1.0 if low == high else (result[key] - low) / (high - low)
                expected += weight * n
        assert fused[key] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert set(fused) == {key for result in results for key in result}


def matrices(seed: int, lengths: list[int], dims: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((length, dims)).astype(np.float32) for length in lengths]


def naive_maxsim(query: NDArray[np.float32], document: NDArray[np.float32]) -> float:
    if not len(document):
        return 0.0
    return sum(max(float(q @ d) for d in document) for q in query)


@given(seeds, st.lists(st.integers(0, 6), max_size=8), st.integers(0, 5))
def test_maxsim_is_its_definition(seed: int, lengths: list[int], query_length: int) -> None:
    query, *documents = matrices(seed, [query_length, *lengths], dims=7)
    expected = [naive_maxsim(query, document) for document in documents]
    np.testing.assert_allclose(maxsim(query, documents), expected, rtol=1e-5, atol=1e-5)
    packed = MultiVectorBatch.from_rows(documents, 7)
    np.testing.assert_array_equal(maxsim(query, packed), maxsim(query, documents))


@pytest.mark.parametrize("tokens", [1, 3, 6])
@pytest.mark.parametrize("dims", [32, 96, 128])
def test_equal_documents_have_equal_scores(dims: int, tokens: int) -> None:
    """Wherever they stand among others: a product in float32 rounds the rows at its end otherwise."""
    query, document = matrices(dims + tokens, [5, tokens], dims=dims)
    for count in (2, 9, 17, 33, 200):
        assert len(set(maxsim(query, [document] * count).tolist())) == 1


def test_maxsim_of_opposite_vectors_is_negative_and_of_no_tokens_is_zero() -> None:
    query = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(maxsim(query, [-query, np.empty((0, 4), np.float32), query]), [-8.0, 0.0, 8.0])


@given(seeds, st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 12))
def test_chunks_cover_every_document_once_within_the_limit(seed: int, lengths: list[int], limit: int) -> None:
    offsets = MultiVectorBatch.from_rows(matrices(seed, lengths, 2), 2).offsets
    chunks = list(fusion._chunks(offsets, limit))
    assert [i for first, last in chunks for i in range(first, last)] == list(range(len(lengths)))
    assert all(sum(lengths[a:b]) <= limit or b == a + 1 for a, b in chunks)


def test_maxsim_in_chunks_equals_maxsim_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    query, *documents = matrices(3, [4, 5, 0, 9, 1, 2, 0], dims=5)
    whole = maxsim(query, documents)
    monkeypatch.setattr(fusion, "_MAXSIM_CHUNK", 4 * 6)
    np.testing.assert_allclose(maxsim(query, documents), whole, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8"])
def test_maxsim_reads_narrow_documents(dtype: str) -> None:
    query, *documents = matrices(5, [6, 4, 0, 7], dims=32)
    narrow = quantize_multivector(MultiVectorBatch.from_rows(documents, 32), dtype)
    np.testing.assert_allclose(maxsim(query, narrow), maxsim(query, documents), rtol=0.02, atol=0.3)


def sparse_vectors(seed: int, count: int, space: int) -> Iterator[SparseVector]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        indices = np.flatnonzero(rng.random(space) < 0.3).astype(np.uint32)
        yield SparseVector(indices, rng.random(len(indices)).astype(np.float32))


@given(seeds, st.integers(0, 8), st.integers(1, 30))
def test_sparse_dot_equals_the_dense_dot_product(seed: int, count: int, space: int) -> None:
    def dense(vector: SparseVector) -> NDArray[np.float64]:
        row = np.zeros(space)
        row[vector.indices] = vector.values
        return row

    query, *documents = sparse_vectors(seed, count + 1, space)
    expected = [dense(query) @ dense(document) for document in documents]
    np.testing.assert_allclose(sparse_dot(query, SparseBatch.from_rows(documents, space)), expected, rtol=1e-6)


def test_sparse_dot_reaches_the_ends_of_the_index_space() -> None:
    ends = SparseVector(np.array([0, 2**32 - 1], np.uint32), np.array([2, 3], np.float32))
    assert sparse_dot(ends, SparseBatch.from_rows([ends], 2**32)).tolist() == [13.0]


@given(arrays(np.float32, st.integers(0, 40), elements=st.integers(-3, 3)), st.integers(1, 45))
def test_top_k_is_the_head_of_a_stable_sort(values: NDArray[np.float32], k: int) -> None:
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert top_k(values, k).tolist() == expected


def test_top_k_orders_unsigned_integers_and_infinities() -> None:
    assert top_k(np.array([0, 3, 1], np.uint8), 2).tolist() == [1, 2]
    assert top_k([0.0, -math.inf, math.inf], 2).tolist() == [2, 0]
