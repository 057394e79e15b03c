import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from tercet.errors import InvalidInputError, UnsupportedOperationError
from tercet.quantize import dequantize, quantize, quantize_multivector, shorten
from tercet.types import OUTPUT_DTYPES, MultiVectorBatch

vectors = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-50, 50, width=32))


@given(vectors)
def test_int8_is_symmetric_and_uses_the_full_range(values: NDArray[np.float32]) -> None:
    integers, quantization = quantize(values, "int8")
    assert integers.dtype == np.int8 and integers.min(initial=0) >= -127
    assert not quantization.offset.any()
    for row, ints in zip(values, integers, strict=True):
        assert np.abs(ints.astype(int)).max() == (127 if np.abs(row).max() > 1e-30 else np.abs(ints.astype(int)).max())


@given(vectors, st.sampled_from(["int8", "uint8"]))
def test_integers_come_back_within_half_a_step(values: NDArray[np.float32], dtype: str) -> None:
    integers, quantization = quantize(values, dtype)
    error = np.abs(dequantize(integers, quantization) - values)
    largest = np.abs(values).max(axis=1, keepdims=True)
    slack = 1e-5 * largest  # float32 rounding of scale and offset
    assert ((error <= quantization.scale[:, None] / 2 + slack) | (largest < 1e-30)).all()


@given(vectors)
def test_uint8_is_int8_with_zero_at_128(values: NDArray[np.float32]) -> None:
    signed, _ = quantize(values, "int8")
    unsigned, quantization = quantize(values, "uint8")
    assert unsigned.dtype == np.uint8
    np.testing.assert_array_equal(unsigned.astype(int), signed.astype(int) + 128)
    np.testing.assert_array_equal(quantization.offset, -128 * quantization.scale)


def test_zero_and_subnormal_vectors_stay_finite() -> None:
    values = np.array([[0, 0], [1e-45, 0], [1e-38, -1e-38]], np.float32)
    for dtype in ("int8", "uint8"):
        integers, quantization = quantize(values, dtype)
        assert np.isfinite(dequantize(integers, quantization)).all()
        assert np.abs(dequantize(integers, quantization)).max() < 1e-30


def test_bits_by_hand() -> None:
    values = np.array([[1, -1, 0, 2, -3, 4, 5, -6], [-1] * 8, [1] * 8], np.float32)
    unsigned, _ = quantize(values, "ubinary")
    assert unsigned.tolist() == [[0b10010110], [0], [255]]
    signed, _ = quantize(values, "binary")
    assert signed.dtype == np.int8 and signed.tolist() == [[0b10010110 - 128], [-128], [127]]


def test_float32_is_not_copied_and_float16_is_rounded() -> None:
    values = np.array([[1 / 3, 2 / 3]], np.float32)
    assert quantize(values, "float32")[0] is values
    assert quantize(values, "float16")[0].tolist() == values.astype(np.float16).tolist()


@pytest.mark.parametrize("dtype", OUTPUT_DTYPES)
def test_empty_batches_have_every_type(dtype: str) -> None:
    values, _ = quantize(np.empty((0, 16), np.float32), dtype)
    assert values.shape == (0, 2 if "binary" in dtype else 16)


def test_what_cannot_be_is_said() -> None:
    values = np.ones((1, 12), np.float32)
    with pytest.raises(InvalidInputError, match="12 is no multiple of 8"):
        quantize(values, "binary")
    with pytest.raises(InvalidInputError, match="float32, float16, int8"):
        quantize(values, "int4")
    with pytest.raises(UnsupportedOperationError, match="ask for float32"):
        quantize(values * 1e5, "float16")


def test_multivector_has_a_scale_per_token() -> None:
    rows = [np.array([[1, 0], [0, 50]], np.float32), np.empty((0, 2), np.float32), np.array([[-3, 1]], np.float32)]
    batch = quantize_multivector(MultiVectorBatch.from_rows(rows, 2), "int8")
    np.testing.assert_allclose(batch.quantization.scale, np.array([1, 50, 3], np.float32) / 127)
    assert [len(matrix) for matrix in batch] == [2, 0, 1]
    np.testing.assert_allclose(dequantize(batch.values, batch.quantization), np.concatenate(rows), atol=0.02)


@given(vectors, st.data())
def test_shorten_slices_and_renormalises(values: NDArray[np.float32], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, values.shape[1]))
    np.testing.assert_array_equal(shorten(values, k, renormalize=False), values[:, :k])
    short = shorten(values, k, renormalize=True)
    assert short.dtype == np.float32
    if k == values.shape[1]:
        assert short is values
        return
    for row, part in zip(short, values[:, :k], strict=True):
        np.testing.assert_allclose(row, part / max(np.linalg.norm(part), 1e-12), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dimensions", [0, -1, 5])
def test_impossible_dimensions_name_the_range(dimensions: int) -> None:
    with pytest.raises(InvalidInputError, match="1 to 4 dimensions"):
        shorten(np.ones((2, 4), np.float32), dimensions, renormalize=True)
