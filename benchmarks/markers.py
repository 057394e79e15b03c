"""The part of a document that a script writes: what stands between its markers."""

from __future__ import annotations

import re
from pathlib import Path

_BETWEEN = re.compile(r"(?<=<!-- measured -->\n).*(?=<!-- end -->)", re.DOTALL)


def write(document: Path, text: str) -> None:
    """Replace what stands between the markers."""
    before = document.read_text("utf-8")
    if not _BETWEEN.search(before):
        raise SystemExit(f"{document.name} holds no <!-- measured --> … <!-- end -->")
    document.write_text(_BETWEEN.sub(lambda _: f"\n{text}\n\n", before), "utf-8")
