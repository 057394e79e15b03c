"""Side-by-side measurement: each contender in a process of its own, rounds interleaved, one at a time.

A contender is a class with `load()`, called once and timed, and `run(task, texts)`. A benchmark script calls `main`
with its contenders; the same script, started with `--child NAME`, is the process of one of them.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Protocol


class Contender(Protocol):
    """One way of doing the work."""

    def load(self) -> None:
        """Import, load the model, and answer one text."""
        ...

    def run(self, texts: Sequence[str]) -> Any:
        """Encode the texts in one call."""
        ...


def serve(make: Callable[[], Contender]) -> None:
    """Be the child process: read one JSON request a line, answer with seconds; `null` ends."""
    start = time.perf_counter()
    contender = make()
    contender.load()
    _say({"load_s": time.perf_counter() - start})
    for line in sys.stdin:
        request = json.loads(line)
        if request is None:
            break
        _say({"seconds": [_timed(contender, texts) for texts in request]})
    _say({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


class Child:
    """A contender's process, seen from the outside."""

    def __init__(self, script: Path, name: str, arguments: Sequence[str] = ()) -> None:
        command = [sys.executable, str(script), "--child", name, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load_s: float = self._hear()["load_s"]
        self.peak_mb = 0.0

    def seconds(self, calls: Sequence[Sequence[str]]) -> list[float]:
        """Return how long each call took, one after the other."""
        self._tell(calls)
        seconds: list[float] = self._hear()["seconds"]
        return seconds

    def close(self) -> None:
        """End the process and keep its peak memory."""
        self._tell(None)
        self.peak_mb = self._hear()["peak_mb"]
        self._process.wait()

    def _tell(self, message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a contender ended early; its own output above says why")
        return json.loads(line)


def interleave(
    children: Mapping[str, Child], calls: Sequence[Sequence[str]], rounds: int
) -> dict[str, list[list[float]]]:
    """Return per contender, per round, the seconds of each call; the order turns from round to round."""
    names = list(children)
    taken: dict[str, list[list[float]]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            taken[name].append(children[name].seconds(calls))
            print(f"  round {i + 1}/{rounds} {name}: {sum(taken[name][-1]):.2f} s", file=sys.stderr)
    return taken


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of their seconds divided by ours."""
    return median(b / a for a, b in zip(ours, theirs, strict=True))


def facts(packages: Sequence[str]) -> str:
    """Return what a figure cannot be read without: machine, versions, commit, command."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    command = " ".join(["python", *sys.argv])
    return f"{_processor()}; Python {platform.python_version()}, {versions}; commit {commit or 'unknown'}; `{command}`"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()


def _timed(contender: Contender, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    contender.run(texts)
    return time.perf_counter() - start


def _say(message: Any) -> None:
    print(json.dumps(message), flush=True)
