"""Side-by-side measurement: each contender in a process of its own, rounds interleaved, one at a time.

A contender is a class with `load()`, called once and timed, and `run(texts)`. A benchmark script opens its contenders
with `started`; the same script, started with `--child NAME`, is the process of one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Protocol


class Contender(Protocol):
    """One way of doing the work.

    `answers(texts)`, where it has that, gives as plain arrays what `run` returns; `about` says what `load` settled.
    """

    def load(self) -> None:
        """Import, load the model, and answer one text."""
        ...

    def run(self, texts: Sequence[str]) -> Any:
        """Encode the texts in one call."""
        ...


def timed(contender: Contender, texts: Sequence[str]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    contender.run(texts)
    return time.perf_counter() - start


def options(about: str | None, contenders: Iterable[str], **amounts: int) -> argparse.ArgumentParser:
    """Return the command line that every script has, and an option for each amount with its default."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in amounts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--json", type=Path, help="where to write the outcome as data")
    parser.add_argument("--child", choices=list(contenders), help=argparse.SUPPRESS)
    return parser


def serve(make: Callable[[], Contender]) -> None:
    """Be the child process: a line asks for the seconds of some calls, or for the answers; `null` ends."""
    start = time.perf_counter()
    contender = make()
    contender.load()
    _say({"load_s": time.perf_counter() - start, "about": getattr(contender, "about", "")})
    for line in sys.stdin:
        request = json.loads(line)
        if request is None:
            break
        if "answers" in request:
            answers = getattr(contender, "answers", contender.run)
            _say({"answers": [row.tolist() for row in answers(request["answers"])]})
        else:
            _say({"seconds": [timed(contender, texts) for texts in request["calls"]]})
    _say({"peak_mb": _peak_mb()})


class Child:
    """A contender's process, seen from the outside; `python` is the interpreter of another environment."""

    def __init__(
        self, script: Path, name: str, arguments: Sequence[str] = (), python: str | Path = sys.executable
    ) -> None:
        command = [str(python), str(script), "--child", name, *arguments]
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=offline)
        self.load_s = 0.0
        self.about = ""
        self.peak_mb = 0.0

    def up(self) -> None:
        """Wait until the contender is loaded."""
        loaded = self._hear()
        self.load_s, self.about = loaded["load_s"], loaded["about"]

    def seconds(self, calls: Sequence[Sequence[str]]) -> list[float]:
        """Return how long each call took, one after the other."""
        self._tell({"calls": calls})
        seconds: list[float] = self._hear()["seconds"]
        return seconds

    def answers(self, texts: Sequence[str]) -> list[Any]:
        """Return what the contender makes of the texts, a row for each."""
        self._tell({"answers": texts})
        answers: list[Any] = self._hear()["answers"]
        return answers

    def close(self) -> None:
        """End the process and keep its peak memory."""
        self._tell(None)
        self.peak_mb = self._hear()["peak_mb"]
        self._process.wait()

    def kill(self) -> None:
        """End the process if it is still there."""
        self._process.kill()
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


@contextmanager
def started(
    script: str | Path,
    names: Iterable[str],
    arguments: Sequence[str] = (),
    pythons: Mapping[str, Path] | None = None,
) -> Iterator[dict[str, Child]]:
    """Yield the contenders' processes, loaded one after the other; none is left at the end, whatever happens."""
    children: dict[str, Child] = {}
    try:
        for name in names:
            children[name] = Child(Path(script), name, arguments, (pythons or {}).get(name, sys.executable))
            children[name].up()
        yield children
        for child in children.values():
            child.close()
    finally:
        for child in children.values():
            child.kill()


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


def totals(taken: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[float]]:
    """Return per contender the seconds of each round."""
    return {name: [sum(calls) for calls in rounds] for name, rounds in taken.items()}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of their seconds divided by ours."""
    return median(b / a for a, b in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _peak_mb() -> float:
    """Return this process's largest resident size; Linux's `ru_maxrss` would count the parent's before the exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _say(message: Any) -> None:
    print(json.dumps(message), flush=True)
