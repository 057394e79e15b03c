"""Types of the vectors in answers: numpy arrays, written to JSON without a way through lists, described as lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[Any]
    Matrix = NDArray[Any]
    IntegerMatrix = NDArray[Any]
else:
    Vector = list[float]
    Matrix = list[list[float]]
    IntegerMatrix = list[list[int]]
