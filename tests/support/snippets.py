"""The code blocks of a document, run as a reader would run them."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_SECTION = re.compile(r"^## ", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sections(document: Path) -> dict[str, str]:
    """Return the document's text by heading; what stands before the first one is under the empty heading."""
    first, *rest = _SECTION.split(document.read_text(encoding="utf-8"))
    return {"": first, **{part.partition("\n")[0]: part for part in rest}}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the content of each code block, in order."""
    for found in _BLOCK.finditer(text):
        yield found[1], found[2]


def check_python(
    document: Path,
    names: Mapping[str, Any] | None = None,
    *,
    only: str | None = None,
    but: str | None = None,
    replaced: Mapping[str, str] | None = None,
) -> int:
    """Run Python blocks one after the other, in one namespace; each `text` block is what the one before printed.

    Blocks in `sh` that begin with curl are run too.

    Args:
        document: the file.
        names: what is defined before the first block.
        only, but: the heading of the section that alone is run, or of one that is not.
        replaced: what stands for something else in the blocks, such as the address of a server.

    Returns:
        How many outputs were compared.
    """
    known, printed, shown, compared = dict(names or {}), None, None, 0
    text = "".join(part for heading, part in sections(document).items() if only in (None, heading) and heading != but)
    for old, new in (replaced or {}).items():
        text = text.replace(old, new)
    for language, block in blocks(text):
        if language == "python":
            shown, printed = block, _of_python(block, document.name, known)
        elif language == "sh" and block.startswith("curl "):
            shown, printed = block, subprocess.run(block, shell=True, capture_output=True, text=True, check=True).stdout
        elif language == "text":
            assert printed == block, f"{shown}\nprinted\n{printed}"
            compared += 1
    return compared


def _of_python(block: str, name: str, known: dict[str, Any]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(block, name, "exec", dont_inherit=True), known)
    return out.getvalue()
