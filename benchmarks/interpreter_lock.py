"""Claim: what a worker does around a small batch keeps the interpreter's lock, and what it avoids gives it away.

Each operation is timed while another thread is busy in Python: one that lets go of the lock gets it back when the
other's turn is over, 5 ms later by Python's setting.

    python benchmarks/interpreter_lock.py [--times 60]
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from attention import seconds
from facts import facts

_ROWS, _WIDTH = 16, 384
STATES = torch.ones(_ROWS, _WIDTH)
ROWS, COLUMN = STATES.numpy(), np.zeros((1, _WIDTH), np.float32)
KEPT: list[torch.Tensor] = []
GIVE_IT_AWAY: dict[str, Callable[[], object]] = {
    "torch.empty": lambda: KEPT.append(torch.empty(_ROWS, _WIDTH)),
    "the end of such a tensor": KEPT.pop,  # there are as many as this is called
    "float32.float()": STATES.float,
    "a sum of 6,144 numbers": ROWS.sum,
}
KEEP_IT: dict[str, Callable[[], object]] = {
    "torch.from_numpy(np.empty)": lambda: KEPT.append(torch.from_numpy(np.empty((_ROWS, _WIDTH), np.float32))),
    "a sum of 384 numbers": ROWS[0].sum,
    "a row, put by a slice": lambda: COLUMN.__setitem__(slice(0, 1), ROWS[:1]),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=60)
    asked = parser.parse_args()
    print(f"{'':44}{'p50 ms':>9}{'p90 ms':>9}")
    with _busy():
        for title, operations in (("gives it away", GIVE_IT_AWAY), ("keeps it", KEEP_IT)):
            for name, operation in operations.items():
                p50, p90 = np.percentile(_taken(operation, asked.times), (50, 90)) * 1e3
                print(f"{title:16}{name:28}{p50:9.3f}{p90:9.3f}")
    print(facts(["torch", "numpy"]))
    return 0


def _taken(operation: Callable[[], object], times: int) -> list[float]:
    """Return the seconds that an operation takes, each time soon after this thread has come by the lock."""
    taken = []
    for _ in range(times):
        time.sleep(1e-4)
        taken.append(seconds(operation))
    return taken


@contextmanager
def _busy() -> Iterator[None]:
    """Have another thread compute in Python."""
    over = threading.Event()

    def count() -> None:
        while not over.is_set():
            sum(range(100))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    raise SystemExit(main())
