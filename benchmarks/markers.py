"""The part of a document that a script writes: what stands between its markers."""

from __future__ import annotations

import re
from pathlib import Path

MEASURED, ON_GPU = "measured", "measured on a GPU"


def between(label: str) -> re.Pattern[str]:
    """Return what finds the part that begins with this marker."""
    return re.compile(rf"(?<=<!-- {label} -->\n).*?(?=<!-- end -->)", re.DOTALL)


def write(document: Path, text: str, label: str = MEASURED) -> None:
    """Replace what stands between the markers."""
    before, part = document.read_text("utf-8"), between(label)
    if not part.search(before):
        raise SystemExit(f"{document.name} holds no <!-- {label} --> … <!-- end -->")
    document.write_text(part.sub(lambda _: f"\n{text}\n\n", before), "utf-8")
