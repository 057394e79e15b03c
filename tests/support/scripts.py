"""The benchmark scripts as modules."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def modules(names: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Yield the scripts' modules; they import each other by plain names, which no other test shall see."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield SimpleNamespace(**{name: import_module(name) for name in names})
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == FOLDER:
            del sys.modules[name]
