"""A small HTTP server that answers as Chroma Cloud does, and keeps every body; what calls it is the real client."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

_PLACE = {"tenant": "default_tenant", "database": "default_database"}


@dataclass
class Cloud:
    """What it was sent, by the last word of the path: as `collections`, `upsert`, `search`."""

    port: int = 0
    limit: int = 300
    bodies: dict[str, list[Any]] = field(default_factory=dict)
    collection: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: Any) -> Any:
        """Return the JSON for a request."""
        word = path.rstrip("/").rpartition("/")[2]
        if method == "POST":
            self.bodies.setdefault(word, []).append(body)
        if method == "POST" and word == "collections":
            schema, metadata = body.get("schema"), body.get("metadata")
            self.collection = {
                "id": str(uuid4()), "name": body["name"], "metadata": metadata, "dimension": None, "version": 0,
                "log_position": 0, "configuration_json": {}, "schema": schema, **_PLACE,
            }  # fmt: skip
            return self.collection
        if re.search(r"/collections/[^/]+$", path):
            return self.collection
        answers = {"search": self.found, "identity": {"user_id": "u", "tenant": "default_tenant", "databases": ["*"]}}
        answers["pre-flight-checks"] = {"max_batch_size": self.limit, "supports_base64_encoding": True}
        answers["get"] = {"ids": [], "documents": [], "metadatas": [], "include": ["documents", "metadatas"]}
        return answers.get(word, {"name": word, "id": str(uuid4()), **_PLACE})


@contextmanager
def cloud() -> Iterator[Cloud]:
    """Yield a running server on a free loopback port."""
    state = Cloud()

    class Handler(BaseHTTPRequestHandler):
        def handle_all(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            data = json.dumps(state.answer(self.command, self.path.partition("?")[0], body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = handle_all  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
