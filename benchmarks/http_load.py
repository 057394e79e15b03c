"""A load of HTTP requests from one event loop, over raw sockets: light enough not to be what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Load:
    """What a round of requests took.

    Attributes:
        seconds: of the whole round. latencies: seconds of each request. failed: answers other than 200, by status.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failed: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return the latency in ms below which this share of the requests lies."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(len(self.latencies) * share))] * 1e3


def send(port: int, path: str, bodies: Sequence[object], connections: int) -> Load:
    """Send every body once, over so many kept-alive connections, each one request at a time."""
    return asyncio.run(_send(port, path, [_request(port, path, body) for body in bodies], connections))


def _request(port: int, path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def _send(port: int, path: str, requests: Sequence[bytes], connections: int) -> Load:
    load, waiting = Load(), iter(requests)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            start = time.perf_counter()
            writer.write(request)
            status = await _answer(reader)
            load.latencies.append(time.perf_counter() - start)
            if status != 200:
                load.failed[status] = load.failed.get(status, 0) + 1
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    load.seconds = time.perf_counter() - start
    return load


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])
