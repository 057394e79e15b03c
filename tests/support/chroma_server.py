"""The real Chroma server in a process of its own, which can be taken away and brought back."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import chromadb
import httpx

_START_S = 60


class ChromaServer:
    """`chroma run` on a folder and a free loopback port; starting it again finds the same data on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = str(Path(sys.executable).with_name("chroma"))
        flags = ["--path", str(self._folder), "--host", "127.0.0.1", "--port", str(self.port)]
        out = subprocess.DEVNULL
        self._process = subprocess.Popen([program, "run", *flags], stdout=out, stderr=out)
        for _ in range(_START_S * 20):
            assert self._process.poll() is None, "chroma run ended early"
            if self._answers():
                return
            threading.Event().wait(0.05)
        raise AssertionError("chroma run did not answer")

    def stop(self) -> None:
        """Kill it as it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> chromadb.api.ClientAPI:
        """Return a new client of it."""
        return chromadb.HttpClient("127.0.0.1", self.port)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/api/v2/heartbeat").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def chroma_server(folder: Path) -> Iterator[ChromaServer]:
    """Yield a running server; it is killed at the end."""
    server = ChromaServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
