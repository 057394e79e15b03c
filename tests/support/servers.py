"""Running servers: the application in this process, and the whole server in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from starlette.applications import Starlette

from tercet.engine.engine import Engine
from tercet_server.app import create_app
from tercet_server.settings import Settings

_SERVE = "import sys; from tercet_server.run import serve; from tercet_server.settings import Sources; "
_START_S = 120


@asynccontextmanager
async def in_process(engine: Engine, settings: Settings, **choices: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the application, once its preloaded models have answered."""
    app = create_app(engine, settings, **choices)
    async with app.router.lifespan_context(app), client_of(app) as client:
        with anyio.fail_after(_START_S):
            while app.state.service.readiness.state == "starting":
                await anyio.sleep(0.01)
        yield client


def client_of(app: Starlette, **choices: Any) -> httpx.AsyncClient:
    """Return a client that calls the application without a socket."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://server.test", timeout=60, **choices)


@dataclass
class LiveServer:
    """A server process. `log` grows while it runs."""

    process: subprocess.Popen[str]
    url: str = ""
    log: list[str] = field(default_factory=list)
    listening: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Begin to read its log."""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def exit_status(self, timeout_s: float = 60) -> int:
        """Wait for its end, and for the rest of its log."""
        status = self.process.wait(timeout_s)
        self.reader.join()
        return status

    def stop(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.exit_status()

    def read(self) -> None:
        """Take in its log until its end."""
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if found := re.search(r"listening on (http:[^\s\"]+)", line):
                    self.url = found[1]
                    self.listening.set()
        self.listening.set()


@contextmanager
def live_server(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Iterator[LiveServer]:
    """Yield a server process on a free loopback port, ready for requests; it is stopped at the end.

    Args:
        flags: settings by field name; `port` is 0 unless given.
        environment: added to this process's own.
    """
    code = _SERVE + f"sys.exit(serve(Sources.here({ ({'port': '0'} | dict(flags))!r})))"
    server = started([sys.executable, "-c", code], environment or {})
    try:
        assert server.listening.wait(_START_S) and server.url, "".join(server.log)
        _await_ready(server.url)
        yield server
    except BaseException:  # shown with the test's failure: what the server said last, and whether it still lives
        print(f"exit status {server.process.poll()}\n{''.join(server.log[-40:])}")
        raise
    finally:
        server.stop()


def started(command: Sequence[str], environment: Mapping[str, str]) -> LiveServer:
    """Return the process of a command whose log is being read; who starts it ends it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TERCET_")}
    return LiveServer(subprocess.Popen(command, env=clean | dict(environment), stderr=subprocess.PIPE, text=True))


def _await_ready(url: str) -> None:
    for _ in range(_START_S * 20):
        if httpx.get(f"{url}/readyz").status_code == 200:
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"{url} did not get ready")
