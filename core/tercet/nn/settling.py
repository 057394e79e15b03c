"""Settling: what is done to a model's weights after its first batch, when a core has nothing else to do."""

from __future__ import annotations

import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

from torch import nn

from tercet.nn.by_rows import RowWeight
from tercet.nn.linear import Linear
from tercet.nn.team import compute_with

log = logging.getLogger(__name__)


def settle(module: nn.Module) -> None:
    """Have weights by rows below `module` laid into panels, and return at once.

    Products give the same bytes before and after. A weight that is let go of meanwhile is left as it is.
    """
    for part in module.modules():
        if isinstance(part, Linear) and isinstance(part.packed, RowWeight):
            SETTLING.submit(_lay, ref(part.packed))


def _lay(held: ref[RowWeight]) -> None:
    try:
        if weight := held():
            weight.lay()
    except (MemoryError, RuntimeError) as error:
        log.warning("a weight stays as it is stored, by which lone queries are slower: %s", error)


def _give_way() -> None:
    """Let the calling thread compute with one core, and on Linux only when no other thread wants to."""
    compute_with(1)
    if sys.platform == "linux":  # elsewhere this would name a process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


SETTLING = ThreadPoolExecutor(1, "tercet-settling", _give_way)
