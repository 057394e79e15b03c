"""Smaller vectors: fewer dimensions (Matryoshka), narrower types, packed bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import InvalidInputError, UnsupportedOperationError
from tercet.types import OUTPUT_DTYPES, MultiVectorBatch, OutputDType, Quantization

_INT8_MAX = 127
_UINT8_ZERO_POINT = 128
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def shorten(values: NDArray[np.float32], dimensions: int, *, renormalize: bool) -> NDArray[np.float32]:
    """Return the first `dimensions` of each vector, as Matryoshka models allow; Kusupati et al. 2022, arXiv:2205.13147.

    Args:
        values: (…, d).
        dimensions: from 1 to d.
        renormalize: divide by max(‖x‖, 1e-12), for models whose vectors have unit length.

    Raises:
        InvalidInputError: `dimensions` is out of range.
    """
    width = values.shape[-1]
    if not 1 <= dimensions <= width:
        raise InvalidInputError(f"dimensions={dimensions}: this model's vectors have 1 to {width} dimensions")
    if dimensions == width:
        return values
    short = np.ascontiguousarray(values[..., :dimensions])
    if not renormalize:
        return short
    norms = np.linalg.norm(short, axis=-1, keepdims=True).astype(np.float32)
    unit: NDArray[np.float32] = short / np.maximum(norms, np.float32(1e-12))
    return unit


def quantize(values: NDArray[np.float32], dtype: OutputDType) -> tuple[NDArray[Any], Quantization | None]:
    """Return the vectors in the output type, and for int8 and uint8 how their integers map back.

    | type    | one vector x becomes                                                  |
    |---------|-----------------------------------------------------------------------|
    | float32 | x itself, not copied                                                  |
    | float16 | x rounded to nearest                                                  |
    | int8    | round(x / scale), scale = max|x| / 127; from −127 to 127              |
    | uint8   | the int8 value + 128                                                  |
    | ubinary | one bit a dimension, 1 where x > 0, first dimension in the highest bit |
    | binary  | the ubinary byte − 128, as int8                                       |

    Args:
        values: (n, d), finite.

    Raises:
        InvalidInputError: the type is unknown, or packed bits are asked of a d that 8 does not divide.
        UnsupportedOperationError: a value is too large for float16.
    """
    match dtype:
        case "float32":
            return values, None
        case "float16":
            return _half(values), None
        case "int8":
            return _integers(values, zero_point=0)
        case "uint8":
            return _integers(values, zero_point=_UINT8_ZERO_POINT)
        case "binary":
            return (_bits(values, dtype) ^ 0x80).view(np.int8), None
        case "ubinary":
            return _bits(values, dtype), None
        case _:
            raise InvalidInputError(f"output_dtype={dtype!r}: choose one of {', '.join(OUTPUT_DTYPES)}")


def quantize_multivector(batch: MultiVectorBatch, dtype: OutputDType) -> MultiVectorBatch:
    """Return the token matrices in the output type, one scale per token; as `quantize`."""
    values, quantization = quantize(batch.values, dtype)
    return MultiVectorBatch(values, batch.offsets, quantization)


def dequantize(values: NDArray[Any], quantization: Quantization | None = None) -> NDArray[np.float32]:
    """Return float32 vectors, `integer · scale + offset`; without a quantization the values as they are.

    Raises:
        InvalidInputError: integers came without their quantization; packed bits have none and cannot come back.
    """
    if quantization is None:
        if values.dtype.kind != "f":
            raise InvalidInputError(
                f"{values.dtype} vectors without scale and offset cannot be read as numbers; "
                "pass float vectors, or int8 / uint8 ones with their quantization"
            )
        return values.astype(np.float32, copy=False)
    scale, offset = quantization.scale[:, np.newaxis], quantization.offset[:, np.newaxis]
    return values.astype(np.float32) * scale + offset


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    largest = np.abs(values).max(initial=0.0)
    if largest > _FLOAT16_MAX:
        raise UnsupportedOperationError(
            f"float16 ends at {_FLOAT16_MAX:.0f}, a vector holds {largest}; ask for float32"
        )
    return values.astype(np.float16)


def _integers(values: NDArray[np.float32], zero_point: int) -> tuple[NDArray[Any], Quantization]:
    scale = np.abs(values).max(axis=1, initial=0.0) / np.float32(_INT8_MAX)
    scale = np.where(scale > 0, scale, np.float32(1))  # a zero vector stays zero under any scale
    steps = np.clip(np.rint(values / scale[:, np.newaxis]), -_INT8_MAX, _INT8_MAX)
    integers = (steps + zero_point).astype(np.uint8 if zero_point else np.int8)
    return integers, Quantization(scale, -zero_point * scale)


def _bits(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    if values.shape[1] % 8:
        raise InvalidInputError(
            f"output_dtype={dtype!r} packs 8 dimensions into a byte, and {values.shape[1]} is no multiple of 8; "
            "choose other `dimensions` or another type"
        )
    return np.packbits(values > 0, axis=1)
