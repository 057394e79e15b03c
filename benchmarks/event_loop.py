"""Claim: requests hold up the server's event loop for no more than 2 ms, but for bodies of megabytes.

The server runs on a thread of this process, on asyncio's own loop, whose callbacks are timed; requests come from
another process. Of each load: the longest callback in processor time of its thread, which is what the code takes, and
how late what was due came at worst, in which waiting for the interpreter's lock and for a core is part.

    python benchmarks/event_loop.py [--times 5]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from cache import bundled
from corpus import mixed_texts, short_queries
from facts import facts
from http_load import send

from tercet import Engine
from tercet_server.app import create_app
from tercet_server.run import suit_interpreter
from tercet_server.settings import Settings

_TICK_S = 0.001
_BAR_MS = 2.0


@dataclass
class Held:
    """What a loop's callbacks took, in ms: of processor time each, and how late each tick came."""

    own: list[float] = field(default_factory=lambda: [0.0])
    late: list[float] = field(default_factory=lambda: [0.0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    print(f"{'':36}{'requests':>9}{'callbacks, p99.9 ms':>21}{'longest':>9}{'ticks late, p99.9 ms':>22}{'latest':>9}")
    worst = 0.0
    with _server() as (port, held), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as caller:
        for name, (path, bodies, connections) in loads(asked.times).items():
            caller.submit(send, port, path, bodies, connections).result()  # its words are known from then on
            held.own[:], held.late[:] = [0.0], [0.0]
            load = caller.submit(send, port, path, bodies, connections).result()
            assert not load.failed, load.failed
            most = [float(np.percentile(times, share)) for times in (held.own, held.late) for share in (99.9, 100)]
            print(f"{name:36}{len(bodies):9}{most[0]:21.2f}{most[1]:9.2f}{most[2]:22.2f}{most[3]:9.2f}")
            worst = max(worst, max(held.own))
    print(f"the longest of all: {worst:.2f} ms (bar {_BAR_MS:g} ms{'' if worst <= _BAR_MS else ', not reached'})")
    print(facts(["tercet", "uvicorn", "orjson", "msgspec"]))
    return 0


def loads(times: int) -> dict[str, tuple[str, list[Any], int]]:
    """Return by name: a path, the bodies that are sent to it, and over how many connections."""
    queries, mixed = short_queries(400), mixed_texts(1_000)
    native, openai = "/v1/encode/minilm", "/v1/embeddings"
    return {
        "short queries, 32 connections": (openai, [{"input": text} for text in queries], 32),
        "mixed texts, 8 connections": (openai, [{"input": text} for text in mixed[:80]], 8),
        "32 short texts, native": (native, [{"items": queries[:32]}] * times, 1),
        "1,000 short texts, native": (native, [{"items": (queries * 3)[:1_000]}] * times, 1),
        "1,000 short texts, OpenAI": (openai, [{"input": (queries * 3)[:1_000]}] * times, 1),
        "1,000 mixed texts (680 kB), native": (native, [{"items": mixed}] * min(times, 2), 1),
        "one text of 1 MB": (native, [{"items": ["word " * 200_000]}] * times, 1),
        "one text of 10 MB": (native, [{"items": ["word " * 2_000_000]}] * min(times, 2), 1),
    }


@contextmanager
def _server() -> Iterator[tuple[int, Held]]:
    """Serve the bundled model; yield the port, and what the loop's callbacks take from then on."""
    held, model = Held(), str(bundled())
    with Engine("cpu", "float32") as engine:
        engine.load(model)
        app = create_app(engine, Settings(models=(model,), aliases={"minilm": model}, defaults={"dense": model}))
        config = uvicorn.Config(app, port=0, loop="asyncio", http="httptools", log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=_serve, args=(server, held))
        suit_interpreter()
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield server.servers[0].sockets[0].getsockname()[1], held
        finally:
            server.should_exit = True
            thread.join()


def _serve(server: uvicorn.Server, held: Held) -> None:
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        start = time.thread_time()
        run(handle)
        held.own.append((time.thread_time() - start) * 1e3)

    async def tick() -> None:
        while True:
            due = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            held.late.append((time.perf_counter() - due) * 1e3)

    async def serve() -> None:
        ticks = asyncio.create_task(tick())
        await server.serve()
        ticks.cancel()

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    asyncio.run(serve())


if __name__ == "__main__":
    raise SystemExit(main())
