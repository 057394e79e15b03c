"""Claim: a lone query is answered no later on all cores than on one, after a pause too, when helpers sleep.

Short queries of the bundled all-MiniLM-L6-v2 in float32, one by one, without pauses and with; a block of them as the
engine does it and a block with one core for each, in turn.

    python benchmarks/pauses.py [--rounds 5] [--queries 60] [--pause-ms 20]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from attention import seconds
from cache import bundled
from corpus import short_queries
from facts import facts

from tercet import Engine
from tercet.engine import schedule
from tercet.nn.model import Model

WAYS: dict[str, Callable[[Model], bool]] = {"as it is": schedule.gains, "one core": lambda model: False}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--pause-ms", type=float, default=20)
    asked = parser.parse_args()
    path, queries = str(bundled()), short_queries(asked.queries)
    taken: dict[tuple[str, float], list[float]] = {}
    with Engine(precision="float32", device="cpu") as engine:
        for query in queries:
            engine.encode(path, query)
        for _ in range(asked.rounds):
            for pause_ms in (0.0, asked.pause_ms):
                for way, gains in WAYS.items():
                    schedule.gains = gains
                    taken.setdefault((way, pause_ms), []).extend(latencies(engine, path, queries, pause_ms))
    print(f"{'':12}{'pause ms':>10}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}")
    for (way, pause_ms), each in sorted(taken.items(), key=lambda item: item[0][1]):
        percentiles = "".join(f"{ms:9.2f}" for ms in np.percentile(each, (50, 90, 99)) * 1e3)
        print(f"{way:12}{pause_ms:10.0f}{percentiles}")
    print(facts(["tercet", "torch"]))
    return 0


def latencies(engine: Engine, path: str, queries: Sequence[str], pause_ms: float) -> list[float]:
    """Return the seconds that each query takes."""
    found = []
    for query in queries:
        time.sleep(pause_ms / 1e3)
        found.append(seconds(lambda query=query: engine.encode(path, query)))  # type: ignore[misc]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
