"""How commands print: JSON for programs, tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


def json_text(value: Any) -> str:
    """Return a value as indented JSON; dataclasses are objects."""
    import orjson  # which --help can do without

    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table on standard output, never cut to the width of a terminal; columns in `right` end on the right."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        aligned = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        )
        click.echo("  ".join(aligned).rstrip())


def size_text(size_bytes: int | None) -> str:
    """Return a size for people, "–" for none."""
    return f"{size_bytes / 2**20:,.0f} MiB" if size_bytes else "–"
