"""The code blocks of a document, run as a reader would run them."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each code block, in order."""
    for found in _BLOCK.finditer(document.read_text(encoding="utf-8")):
        yield found[1], found[2]


def check_python(document: Path, names: dict[str, Any] | None = None) -> int:
    """Run the Python blocks one after the other, in one namespace; each `text` block is what the one before printed.

    Args:
        document: the file.
        names: what is defined before the first block.

    Returns:
        How many outputs were compared.
    """
    names = dict(names or {})
    shown = printed = None
    compared = 0
    for language, text in blocks(document):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, document.name, "exec"), names)
            shown, printed = text, out.getvalue()
        elif language == "text":
            assert printed == text, shown
            compared += 1
    return compared
