"""One batch through one model, and the ladder of what to try when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.engine.device import Device, is_out_of_memory
from tercet.engine.queue import Work
from tercet.errors import CheckpointError, OutOfMemoryError, TercetError
from tercet.nn.batch import PackedBatch
from tercet.nn.model import Model
from tercet.types import SparseVector

Rows = Mapping[str, Sequence[Any]]
Outcome = tuple[Sequence[Work], Rows | Exception]


def run_batch(
    model: Model,
    works: Sequence[Work],
    outputs: Sequence[str],
    device: Device,
    evict_idle: Callable[[], object],
    out_of_memory: Callable[[str], object] = lambda step: None,
) -> Iterator[Outcome]:
    """Yield parts of the batch with their rows, or, for one sequence alone, with the error that it causes.

    Out of memory: give cached memory back, then evict idle models, then halve the batch, down to one sequence alone.
    Any other failure halves the batch at once, so that a poisoned input fails by itself. `out_of_memory` is told each
    step by the names of `OutOfMemoryEvent`.
    """
    failure: Exception | None = None
    for step, recover in (("", None), ("release", device.release_cached_memory), ("evict", evict_idle)):
        if recover is not None:
            if failure is None or not is_out_of_memory(failure):
                break
            out_of_memory(step)
            recover()
        try:
            rows = forward(model, works, outputs, device)
        except Exception as error:
            # Without its traceback: the frames hold the tensors that are to be freed.
            failure = error.with_traceback(None)
        else:
            yield from _finite(works, rows, device)
            return
    assert failure is not None
    if is_out_of_memory(failure):
        out_of_memory("refuse" if len(works) == 1 else "halve")
    if len(works) == 1:
        yield works, _explained(failure, works[0], device)
        return
    middle = len(works) // 2
    for half in (works[:middle], works[middle:]):
        yield from run_batch(model, half, outputs, device, evict_idle, out_of_memory)


def forward(model: Model, works: Sequence[Work], outputs: Sequence[str], device: Device) -> Rows:
    """Return, per output, one row for each work."""
    return model.rows(PackedBatch.of([work.sequence for work in works], device.target), outputs)


def _finite(works: Sequence[Work], rows: Rows, device: Device) -> Iterator[Outcome]:
    """Yield the works with their rows, those whose rows hold NaN or infinity each with an error."""
    if all(isinstance(column, np.ndarray) and np.isfinite(column.sum()) for column in rows.values()):
        yield works, rows  # a sum is not finite if one number is not, and found in one operation
        return
    good = np.ones(len(works), np.bool_)
    for column in rows.values():
        good &= _finite_rows(column)
    if good.all():
        yield works, rows
        return
    kept = np.flatnonzero(good).tolist()
    if kept:
        yield [works[i] for i in kept], {name: [column[i] for i in kept] for name, column in rows.items()}
    for i in np.flatnonzero(~good).tolist():
        yield (
            [works[i]],
            CheckpointError(
                f"item {works[i].index} came out as NaN or infinity: the model's weights hold such values, or they "
                f"overflow in {device.precision}; check the files, or try precision='float32'"
            ),
        )


def _finite_rows(column: Sequence[Any]) -> NDArray[np.bool_]:
    if isinstance(column, np.ndarray):
        return np.isfinite(column.reshape(len(column), -1)).all(1)
    each = (row.values if isinstance(row, SparseVector) else row for row in column)
    return np.array([np.isfinite(values).all() for values in each], np.bool_)


def _explained(error: Exception, work: Work, device: Device) -> Exception:
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"item {work.index} with {work.tokens:,} tokens does not fit into {device.target} memory even alone; "
            "shorten it, lower memory_budget so that activations have more room, or use a lower precision"
        )
    if isinstance(error, TercetError):
        return error
    return TercetError(f"item {work.index} could not be computed: {type(error).__name__}: {error}")
