"""Columns: rows in any order become the right columns; sparse vectors are cut, token matrices pooled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet import SparseVector
from tercet.checkpoints.checkpoint import EncodeSettings
from tercet.engine.columns import EmbeddingColumns, largest
from tercet.engine.pool_tokens import pool_tokens
from tercet.engine.requests import EncodeRequest
from tercet.quantize import quantize

RNG = np.random.default_rng(7)
ALL = EncodeSettings(("dense", "sparse", "multivector"))


def unit(*shape):
    x = RNG.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def sparse_row(n):
    return SparseVector(np.sort(RNG.choice(1000, n, False)).astype(np.uint32), RNG.random(n).astype(np.float32) + 0.1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "binary"])
def test_batches_in_any_order_fill_the_columns(dtype):
    dense, lengths = unit(7, 16), [1, 3, 2, 5, 1, 4, 2]
    sparse, matrices = [sparse_row(n) for n in lengths], [unit(n, 16) for n in lengths]
    columns = EmbeddingColumns(7, EncodeRequest(ALL, output_dtype=dtype), {"sparse": 1000}, True)
    for places in ([4, 0], [6], [1, 2, 3, 5]):
        rows = {"dense": dense[places], "sparse": [sparse[i] for i in places]}
        columns.put(np.array(places), {**rows, "multivector": [matrices[i] for i in places]})
    fields = columns.fields()
    values, quantization = quantize(dense, dtype)
    np.testing.assert_array_equal(fields["dense"], values)
    for i, (row, matrix) in enumerate(zip(sparse, matrices, strict=True)):
        np.testing.assert_array_equal(fields["sparse"][i].indices, row.indices)
        np.testing.assert_array_equal(fields["sparse"][i].values, row.values)
        np.testing.assert_array_equal(fields["multivector"][i], quantize(matrix, dtype)[0])
    if quantization is not None:
        np.testing.assert_array_equal(fields["quantization"].scale, quantization.scale)
        assert len(fields["multivector"].quantization.scale) == sum(lengths)


def test_shortened_vectors_are_normalised_again_where_the_model_normalises():
    for normalized in (True, False):
        columns = EmbeddingColumns(3, EncodeRequest(EncodeSettings(("dense",)), dimensions=4), {}, normalized)
        columns.put(np.arange(3), {"dense": (full := unit(3, 16))})
        short = full[:, :4]
        expected = short / np.linalg.norm(short, axis=1, keepdims=True) if normalized else short
        np.testing.assert_allclose(columns.fields()["dense"], expected, rtol=1e-6)


@given(st.lists(st.floats(0.125, 8, width=32), min_size=1, max_size=30), st.integers(1, 12))
def test_the_largest_weights_stay_in_order_of_index(weights, k):
    row = SparseVector(np.arange(10, 10 + len(weights), dtype=np.uint32), np.array(weights, np.float32))
    cut = largest(row, k)
    assert len(cut) == min(k, len(weights))
    assert (np.diff(cut.indices.astype(int)) > 0).all()
    left_out = np.setdiff1d(row.indices, cut.indices)
    if len(left_out):
        assert cut.values.min() >= row.values[left_out - 10].max()


def test_token_pooling_merges_what_is_alike_and_protects_the_first():
    first, a, b = unit(3, 32)
    tokens = np.stack([first, a, b, a, b, a])
    pooled = pool_tokens(tokens, 2)
    np.testing.assert_allclose(pooled, np.stack([first, a, b]), atol=1e-6)
    np.testing.assert_array_equal(pool_tokens(tokens, 1), tokens)
    np.testing.assert_array_equal(pool_tokens(tokens[:1], 4), tokens[:1])


@given(st.integers(1, 40), st.integers(1, 6))
def test_token_pooling_keeps_about_one_in_factor(n, factor):
    pooled = pool_tokens(unit(n, 8), factor)
    assert len(pooled) <= -(-(n - 1) // factor) + 1
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)
