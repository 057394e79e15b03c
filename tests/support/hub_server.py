"""A model hub on loopback: the endpoints that huggingface_hub calls, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

_API = re.compile(r"/api/models/(?P<id>.+?)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?$")
_FILE = re.compile(r"/(?P<id>.+?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")


@dataclass
class Repo:
    """A repository: its files, and the branches and tags that name its one commit."""

    files: Mapping[str, bytes]
    refs: tuple[str, ...] = ("main",)
    gated: bool = False
    token: str | None = None

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + b"\0" + content)
        return digest.hexdigest()


@dataclass
class Fault:
    """What goes wrong `times` times with requests whose path contains `where`.

    Attributes:
        status: the answer instead of the real one.
        cut_after: bytes of the body that are sent before the connection breaks.
        delay_s: how long the answer waits.
    """

    where: str
    times: int = 1
    method: str | None = None
    status: int | None = None
    cut_after: int | None = None
    delay_s: float = 0.0


@dataclass
class HubServer:
    """A running hub; use it as a context manager and give `endpoint` to the code under test."""

    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def count(self, method: str, fragment: str) -> int:
        """Return how many requests of this method had the fragment in their path."""
        return Counter(m == method and fragment in path for m, path, _ in self.requests)[True]

    def fault_for(self, method: str, path: str) -> Fault:
        for fault in self.faults:
            if fault.times and fault.where in path and fault.method in (None, method):
                fault.times -= 1
                return fault
        return Fault(path)


_Answer = tuple[int, bytes, dict[str, str]]


class _RefusalError(Exception):
    """An error answer: its status, and the code by which the hub names its kind."""

    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(status, code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        self._fault = self.hub.fault_for(self.command, path)
        time.sleep(self._fault.delay_s)
        try:
            if self._fault.status:
                raise _RefusalError(self._fault.status)
            self._send(*self._found(path))
        except _RefusalError as refused:
            self._send(refused.status, b"", {"X-Error-Code": refused.code} if refused.code else {})

    def _found(self, path: str) -> _Answer:
        if match := _API.match(path):
            return self._api_answer(self._repo(match["id"], match["revision"]), match["id"], match["what"])
        if match := _FILE.match(path):
            return self._file_answer(self._repo(match["id"], match["revision"]), match["path"])
        raise _RefusalError(404, "EntryNotFound")

    def _repo(self, name: str, revision: str | None) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None:
            raise _RefusalError(401, "RepoNotFound")
        if repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}":
            raise _RefusalError(403, "GatedRepo") if repo.gated else _RefusalError(401, "RepoNotFound")
        if revision not in (None, repo.commit, *repo.refs):
            raise _RefusalError(404, "RevisionNotFound")
        return repo

    def _api_answer(self, repo: Repo, name: str, what: str | None) -> _Answer:
        info = {"id": name, "sha": repo.commit, "siblings": [{"rfilename": path} for path in repo.files]}
        tree = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in repo.files.items()
        ]
        return 200, json.dumps(tree if what == "tree" else info).encode(), {"Content-Type": "application/json"}

    def _file_answer(self, repo: Repo, path: str) -> _Answer:
        if path not in repo.files:
            raise _RefusalError(404, "EntryNotFound")
        content = repo.files[path]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": repo.commit}
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not wanted:
            return 200, content, headers
        start = int(wanted[1])
        return 206, content[start:], headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: self._fault.cut_after])
        if self._fault.cut_after is not None:
            self.close_connection = True
