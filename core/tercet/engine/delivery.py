"""Delivery: the rows of a batch, given back to the calls that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

import numpy as np

from tercet.engine.batch_run import Rows
from tercet.engine.queue import Work, by_call


def deliver(works: Sequence[Work], rows: Rows | Exception, pool: Executor | None = None) -> None:
    """Give each call its rows, or the error; a call that cannot take its rows fails alone.

    On a thread of the pool, if one is given; on the calling one too once the interpreter is to end and no pool takes
    anything any more.
    """
    if pool is not None:
        with suppress(RuntimeError):
            pool.submit(deliver, works, rows)
            return
    for call, positions in by_call(works):
        if isinstance(rows, Exception):
            call.fail(rows)
            continue
        try:
            own = {name: _picked(column, positions) for name, column in rows.items()}
            call.deliver([works[i].index for i in positions], own)
        except Exception as error:
            call.fail(error)


def _picked(column: Sequence[Any], positions: list[int]) -> Sequence[Any]:
    if len(positions) == len(column):
        return column
    if len(positions) == 1:
        return column[positions[0] : positions[0] + 1]
    return column[positions] if isinstance(column, np.ndarray) else [column[i] for i in positions]
