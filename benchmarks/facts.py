"""What a figure cannot be read without: machine, versions, commit, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Facts:
    """Where and by what a script's figures were made."""

    processor: str
    versions: dict[str, str]
    commit: str
    command: str

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.processor}; {versions}; commit {self.commit}; `{self.command}`"


def facts(packages: Sequence[str], elsewhere: Sequence[str] = ()) -> Facts:
    """Return the facts of this run; `elsewhere` are packages of another environment, as "name==version"."""
    versions = {"Python": platform.python_version(), **{name: _version(name) for name in packages}}
    versions |= dict(package.split("==") for package in elsewhere)
    return Facts(_processor(), versions, _commit(), command(sys.argv))


def command(argv: Sequence[str]) -> str:
    """Return how to run the same again; where its outcome was kept is left out."""
    words = list(argv)
    if "--json" in words:
        place = words.index("--json")
        del words[place : place + 2]
    return " ".join(["python", *words])


def _version(package: str) -> str:
    if package != "tercet":
        return version(package)
    from tercet.version import __version__  # here, since it runs from its folder too, and peers' environments lack it

    return __version__


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD") or os.environ.get("COMMIT")  # for a copy without its history
    changed = _git("status", "--porcelain", "--", "core", "server", "integrations", "benchmarks")
    return f"{commit or 'unknown'} with uncommitted changes" if changed else commit or "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()
